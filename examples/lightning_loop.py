"""A converted network in Lightning's validation and prediction loops.

    pip install pytorch-lightning
    python examples/lightning_loop.py [--images N] [--timesteps T]

Train the ReLU network with Lightning as ever, convert it, and put what comes out into a module like
:class:`Spiking`. There is nothing to fit: a converted network has no training mode. Network and
images are the trained VGG and the Fashion-MNIST test images that come with the package.
"""

import argparse

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import snm
from snm.demo import load_images, load_network


class Spiking(lightning.LightningModule):
    """A spiking network that is validated and predicts.

    Args:
        net: what ``snm.convert`` or ``snm.load`` returned.
        timesteps: T.
    """

    def __init__(self, net: snm.SpikingNetwork, timesteps: int) -> None:
        super().__init__()
        self.net = net
        self.timesteps = timesteps

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, classes]``."""
        return self.net(images, timesteps=self.timesteps)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Logs the accuracy after all time steps, and after half of them from the same pass."""
        images, labels = batch
        by_step = self.net.anytime(images, timesteps=self.timesteps)
        right = (by_step.argmax(2) == labels).float().mean(1)
        self.log("accuracy", right[-1], batch_size=len(labels))
        self.log("accuracy_half_way", right[self.timesteps // 2 - 1], batch_size=len(labels))

    def predict_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """The classes."""
        images, _ = batch
        return self(images).argmax(1)


def main() -> None:
    """Convert the packaged network, validate it, predict."""
    parser = argparse.ArgumentParser(description="A converted network in Lightning's loops.")
    parser.add_argument("--images", type=int, default=2_000, help="how many test images")
    parser.add_argument("--timesteps", type=int, default=16)
    options = parser.parse_args()

    data = load_images()
    labels = data.test_labels[: options.images]
    loader = DataLoader(TensorDataset(data.test_images[: options.images], labels), batch_size=100)
    net = snm.convert(load_network(), data.calibration_images, preset="snm-zero")

    module = Spiking(net, options.timesteps)
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False)
    (metrics,) = trainer.validate(module, loader, verbose=False)
    print(f"validation accuracy, {options.timesteps} time steps: {metrics['accuracy']:.2%}")
    print(f"half way: {metrics['accuracy_half_way']:.2%}")
    classes = torch.cat(trainer.predict(module, loader))
    print(f"prediction accuracy: {(classes == labels).float().mean():.2%} of {len(classes)}")


if __name__ == "__main__":
    main()

"""A converted network in an evaluation loop that knows nothing of spikes.

    python examples/plain_pytorch_loop.py [--images N] [--timesteps T] [--device cuda]

A :class:`snm.SpikingNetwork` is a ``torch.nn.Module``: it moves with ``.to()``, it is saved and
loaded, and a call returns logits ``[B, classes]``. All that is new is the number of time steps.
Network and images are the trained VGG and the Fashion-MNIST test images that come with the package.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import snm
from snm.demo import load_images, load_network


@torch.no_grad()
def accuracy(classify: Callable[[Tensor], Tensor], loader: DataLoader, device: str) -> float:
    """The share of images whose largest logit is that of their class."""
    right = seen = 0
    for images, labels in loader:
        logits = classify(images.to(device))
        right += int((logits.argmax(1).cpu() == labels).sum())
        seen += len(labels)
    return right / seen


def main() -> None:
    """Evaluate the ReLU network, then the spiking network, by the same loop."""
    parser = argparse.ArgumentParser(description="Evaluate a converted network.")
    parser.add_argument("--images", type=int, default=2_000, help="how many test images")
    parser.add_argument("--timesteps", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    data = load_images()
    test = TensorDataset(data.test_images[: options.images], data.test_labels[: options.images])
    loader = DataLoader(test, batch_size=100)
    model = load_network()
    net = snm.convert(model, data.calibration_images, preset="snm-zero")

    with tempfile.TemporaryDirectory() as folder:
        snm.save(net, Path(folder) / "net.safetensors")
        net = snm.load(Path(folder) / "net.safetensors")

    model, net = model.to(options.device), net.to(options.device)
    relu = accuracy(model, loader, options.device)
    print(f"ReLU network: {relu:.2%} of {len(test)} test images")
    spiking = accuracy(partial(net, timesteps=options.timesteps), loader, options.device)
    print(f"spiking network, {options.timesteps} time steps: {spiking:.2%}")


if __name__ == "__main__":
    main()

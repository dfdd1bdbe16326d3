"""A torchvision ResNet as a spiking network: its answers come closer with the time steps.

    python examples/resnet.py [--model resnet18] [--checkpoint FILE] [--photos FOLDER]
        [--size 224] [--images N] [--preset snm-zero] [--timesteps T]

Nothing is downloaded. Without a checkpoint the weights are random; without --photos, which holds
photos in a folder for each class, the images are noise. The ReLU network is what the spiking one
is held against, so no labels are needed. Accuracies on ImageNet: ``snm evaluate``.
"""

import argparse
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import models

import snm

SHOWN_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@torch.no_grad()
def build(name: str, checkpoint: Path | None) -> nn.Module:
    """A ResNet in evaluation mode, with the weights of a checkpoint or random ones."""
    model = getattr(models, name)(weights=None)
    if checkpoint is not None:
        model.load_state_dict(torch.load(checkpoint, weights_only=True))
    else:
        # Batch norms that have seen images keep activations in the range of a trained network's.
        for _ in range(10):
            model(torch.randn(8, 3, 64, 64))
    return model.eval()


def load(photos: Path | None, size: int, images: int) -> Tensor:
    """Images ``[N, 3, size, size]``, standardised as torchvision's checkpoints expect them."""
    if photos is None:
        # Coarse, so that something is left of it behind the first pooling.
        noise = torch.randn(images, 3, size // 8, size // 8)
        return nn.functional.interpolate(noise, size=size, mode="bilinear")
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    standard = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pictures = Compose([Resize(size * 8 // 7), CenterCrop(size), ToTensor(), standard])
    loader = DataLoader(ImageFolder(photos, pictures), shuffle=True)
    return torch.cat([image for image, _ in islice(loader, images)])


@torch.no_grad()
def main() -> None:
    """Convert, simulate once, print how close each number of time steps comes."""
    parser = argparse.ArgumentParser(description="A torchvision ResNet as a spiking network.")
    parser.add_argument("--model", default="resnet18", help="resnet18, resnet34, resnet50, ...")
    parser.add_argument("--checkpoint", type=Path, help="its state_dict")
    parser.add_argument("--photos", type=Path, help="folder of photos in a folder for each class")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side, 32 at least")
    parser.add_argument("--images", type=int, default=16, help="to calibrate, as many to test")
    parser.add_argument("--preset", default="snm-zero", choices=list(snm.PRESETS))
    parser.add_argument("--timesteps", type=int, default=64)
    options = parser.parse_args()

    torch.manual_seed(0)
    model = build(options.model, options.checkpoint)
    calibration, images = load(options.photos, options.size, 2 * options.images).chunk(2)

    # Whether it can be converted, and if not, each operation in the way.
    print(f"{options.model}: {snm.convertible(model, images)}")

    # One threshold a channel needs fewer images than one a neuron.
    net = snm.convert(model, calibration, preset=options.preset, norm="channel")
    logits = model(images)
    by_step = net.anytime(images, timesteps=options.timesteps)

    print(f"{'T':>4}  error of the logits  same answer")
    for steps in (t for t in SHOWN_STEPS if t <= options.timesteps):
        found = by_step[steps - 1]
        error = (found - logits).norm() / (logits - logits.mean(0)).norm()
        same = (found.argmax(1) == logits.argmax(1)).float().mean()
        print(f"{steps:4}  {error:19.1%}  {same:11.1%}")


if __name__ == "__main__":
    main()

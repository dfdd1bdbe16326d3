"""CIFAR-10 from end to end: train a small VGG, convert it, tune it, evaluate it.

    python examples/cifar10.py --data FOLDER [--epochs N] [--width C] [--out weights.safetensors]
    python examples/cifar10.py --data FOLDER --checkpoint weights.safetensors [--timesteps T]

FOLDER holds the binary files of CIFAR-10 (Krizhevsky, 2009), or the folder that its archive unpacks
to, binary or python; the latter are read by torchvision. The weights are those of the last epoch:
the test images choose nothing.
"""

import argparse
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import snm
from snm.data.cifar import cifar

MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)
BATCH_SIZE = 128
CALIBRATION_IMAGES = 1_000
SHOWN_STEPS = (1, 2, 4, 8, 16, 32)


def vgg(width: int) -> nn.Sequential:
    """A VGG of six convolutions; ReLU, batch norm and pooling as they come, all convert."""
    layers: list[nn.Module] = []
    channels = 3
    for block in (1, 2, 4):
        for _ in range(2):
            layers += [
                nn.Conv2d(channels, block * width, 3, padding=1, bias=False),
                nn.BatchNorm2d(block * width),
                nn.ReLU(),
            ]
            channels = block * width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def read(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images uint8 ``[N, 3, 32, 32]`` and labels int64 ``[N]``."""
    data = cifar("cifar10", folder, split)
    return torch.from_numpy(data.images).permute(0, 3, 1, 2), torch.from_numpy(data.labels)


def standardise(images: Tensor) -> Tensor:
    """float32 from uint8."""
    return (images / 255 - MEAN) / STD


def augment(images: Tensor) -> Tensor:
    """All images of a batch shifted by up to four pixels, every other one mirrored."""
    top, left = torch.randint(9, (2,)).tolist()
    images = nn.functional.pad(images, [4] * 4)[..., top : top + 32, left : left + 32]
    mirrored = torch.rand(len(images), 1, 1, 1) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train it, by the one-cycle schedule."""
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = -(-len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=epochs * steps, cycle_momentum=False
    )
    for epoch in range(epochs):
        batches = torch.randperm(len(images)).split(BATCH_SIZE)
        for batch in track(batches, f"epoch {epoch + 1}/{epochs}", transient=True):
            logits = model(standardise(augment(images[batch])))
            loss = nn.functional.cross_entropy(logits, labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracies(net: nn.Module, images: Tensor, labels: Tensor, timesteps: int | None) -> Tensor:
    """The share of right answers: of a ReLU network one, of a spiking network one a time step."""
    right = torch.zeros(timesteps or 1)
    for batch in torch.arange(len(images)).split(100):
        drive = standardise(images[batch])
        logits = net(drive)[None] if timesteps is None else net.anytime(drive, timesteps=timesteps)
        right += (logits.argmax(2) == labels[batch]).sum(1)
    return right / len(images)


def main() -> None:
    """Train or load, convert, tune, evaluate."""
    parser = argparse.ArgumentParser(description="CIFAR-10 from end to end.")
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the training set")
    parser.add_argument("--width", type=int, default=64, help="channels of the first block")
    parser.add_argument("--checkpoint", type=Path, help="weights that --out wrote; trains nothing")
    parser.add_argument("--out", type=Path, help="where to write the weights")
    parser.add_argument("--timesteps", type=int, default=4, help="what to tune for")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds that tuning may take")
    parser.add_argument("--test-images", type=int, default=10_000, help="how many at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    images, labels = read(options.data, "train")
    test_images, test_labels = (all_[: options.test_images] for all_ in read(options.data, "test"))
    model = vgg(options.width)
    if options.checkpoint is not None:
        model.load_state_dict(load_file(options.checkpoint))
    else:
        train(model, images, labels, options.epochs)
    if options.out is not None:
        save_file(model.state_dict(), options.out)
    model.eval()

    (relu,) = accuracies(model, test_images, test_labels, None)
    print(f"{'ReLU network':26} {relu:7.2%} of {len(test_images)} test images")

    calibration = standardise(images[torch.randperm(len(images))[:CALIBRATION_IMAGES]])
    net = snm.convert(model, calibration, preset="snm-zero")
    by_step = accuracies(net, test_images, test_labels, max(SHOWN_STEPS))
    for steps in SHOWN_STEPS:
        print(f"{'converted':10} {steps:3} time steps  {by_step[steps - 1]:7.2%}")

    tuned = snm.tune(model, calibration, options.timesteps, budget=options.budget)
    by_step = accuracies(tuned.net, test_images, test_labels, options.timesteps)
    print(f"{'tuned':10} {options.timesteps:3} time steps  {by_step[-1]:7.2%} ({tuned.chosen})")


if __name__ == "__main__":
    main()

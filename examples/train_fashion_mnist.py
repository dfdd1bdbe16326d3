"""Train the demo network on Fashion-MNIST and write the assets that the package ships.

    python examples/train_fashion_mnist.py --data DIR [--out DIR] [--epochs N] [--seed S]
        [--dropout P] [--learning-rate R] [--resume FILE] [--bf16]

DIR holds the four files of Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017, arXiv:1708.07747), gzipped
or plain: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
t10k-labels-idx1-ubyte. One way to get them is ``apt-get install dataset-fashion-mnist``, which puts
them into /usr/share/datasets/fashion-mnist.

Written to --out: vgg.safetensors, images.npz and metrics.json. The weights are those of the last
epoch; the test accuracies printed on the way choose nothing.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from snm.demo.data import normalise
from snm.demo.vgg import SmallVGG

ASSETS = Path(__file__).resolve().parents[1] / "python" / "snm" / "demo" / "assets"
PACKAGED_TEST_IMAGES = 2_000
PACKAGED_CALIBRATION_IMAGES = 1_000

BATCH_SIZE = 128
WARM_UP = 0.2
MOMENTUM = 0.9
WEIGHT_DECAY = 2e-4
LABEL_SMOOTHING = 0.1
CROP_PADDING = 2


class FashionMNIST(NamedTuple):
    """The data set: images uint8 [N, 28, 28], labels uint8 [N]."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def read_idx(directory: Path, name: str) -> npt.NDArray[np.uint8]:
    """The uint8 array in the idx file ``name`` or ``name``.gz of ``directory``.

    Raises:
        FileNotFoundError: neither file is there.
        ValueError: the file is not an idx file of unsigned bytes, or is cut short.
    """
    plain, gzipped = directory / name, directory / f"{name}.gz"
    if plain.exists():
        content = plain.read_bytes()
    elif gzipped.exists():
        content = gzip.decompress(gzipped.read_bytes())
    else:
        raise FileNotFoundError(f"read_idx: {directory} holds neither {name} nor {name}.gz")
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"read_idx: {name} must be an idx file of unsigned bytes")
    header = 4 + 4 * content[3]
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], dtype=">u4"))
    values = np.frombuffer(content[header:], dtype=np.uint8)
    if values.size != np.prod(shape):
        raise ValueError(f"read_idx: {name} must hold {shape} values, got {values.size}")
    return values.reshape(shape).copy()


def read_fashion_mnist(directory: Path) -> FashionMNIST:
    """The training and test set out of the four idx files of ``directory``."""
    return FashionMNIST(
        *(
            torch.from_numpy(read_idx(directory, name))
            for name in (
                "train-images-idx3-ubyte",
                "train-labels-idx1-ubyte",
                "t10k-images-idx3-ubyte",
                "t10k-labels-idx1-ubyte",
            )
        )
    )


def augment(images: Tensor) -> Tensor:
    """A random crop of each padded image, mirrored left to right for every other one on average.

    Args:
        images: uint8 [B, H, W].

    Returns:
        uint8 [B, H, W].
    """
    batch, height, width = images.shape
    padded = nn.functional.pad(images, [CROP_PADDING] * 4)
    rows = torch.randint(2 * CROP_PADDING + 1, (batch, 1)) + torch.arange(height)
    columns = torch.randint(2 * CROP_PADDING + 1, (batch, 1)) + torch.arange(width)
    mirrored = torch.rand(batch, 1) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    return padded[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]


def train(
    network: nn.Module, data: FashionMNIST, epochs: int, learning_rate: float, bfloat16: bool
) -> nn.Module:
    """Train a network, printing the test accuracy after each epoch."""
    convert_conv2d_weight_memory_format(network, torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=learning_rate,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        nesterov=True,
        fused=True,
    )
    steps = -(-len(data.train_images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=learning_rate,
        epochs=epochs,
        steps_per_epoch=steps,
        pct_start=WARM_UP,
        cycle_momentum=False,
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=epochs * steps)
        for epoch in range(1, epochs + 1):
            network.train()
            total_loss = 0.0
            for batch in torch.split(torch.randperm(len(data.train_images)), BATCH_SIZE):
                images = normalise(augment(data.train_images[batch]))
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    logits = network(images.contiguous(memory_format=torch.channels_last))
                    loss = loss_function(logits, data.train_labels[batch].long())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total_loss += loss.item() * len(batch)
                progress.update(bar, advance=1, description=f"epoch {epoch}/{epochs}")
            mean_loss = total_loss / len(data.train_images)
            percent = 100 * accuracy(network, data.test_images, data.test_labels)
            progress.console.print(f"epoch {epoch}: loss {mean_loss:.3f}, test {percent:.2f} %")
    return network


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of uint8 ``images`` [N, 28, 28] that ``network`` classifies as ``labels`` [N]."""
    network.eval()
    hits = 0
    for batch in torch.split(torch.arange(len(images)), 1_000):
        hits += int((network(normalise(images[batch])).argmax(1) == labels[batch]).sum())
    return hits / len(images)


def write_assets(out: Path, network: SmallVGG, data: FashionMNIST, epochs: int, seed: int) -> None:
    """Write the weights, the packaged images and the metrics into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    (out / "vgg.safetensors").write_bytes(save(weights))

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data.train_images), generator=generator)
    calibration = order[:PACKAGED_CALIBRATION_IMAGES]
    test_images = data.test_images[:PACKAGED_TEST_IMAGES]
    test_labels = data.test_labels[:PACKAGED_TEST_IMAGES]
    np.savez_compressed(
        out / "images.npz",
        test_images=test_images.numpy(),
        test_labels=test_labels.numpy(),
        calibration_images=data.train_images[calibration].numpy(),
        calibration_labels=data.train_labels[calibration].numpy(),
    )

    metrics = {
        "test_accuracy_10000": accuracy(network, data.test_images, data.test_labels),
        "test_accuracy_2000": accuracy(network, test_images, test_labels),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "epochs": epochs,
        "seed": seed,
        "torch": torch.__version__,
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Parse the command line, train, write."""
    parser = argparse.ArgumentParser(description="Train the demo network on Fashion-MNIST.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the four idx files")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write into")
    parser.add_argument("--epochs", type=int, default=14, help="passes over the training set")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the shuffling")
    parser.add_argument(
        "--dropout", type=float, default=0.15, help="share of activations that training leaves out"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=0.1, help="peak of the one-cycle schedule"
    )
    parser.add_argument("--resume", type=Path, help="weights to start from: a vgg.safetensors")
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="autocast to bfloat16: faster where the processor multiplies bfloat16 matrices (AMX)",
    )
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    data = read_fashion_mnist(options.data)
    network = SmallVGG(dropout=options.dropout)
    if options.resume is not None:
        network.load_state_dict(load_file(options.resume))
    train(network, data, options.epochs, options.learning_rate, options.bf16)
    write_assets(options.out, network, data, options.epochs, options.seed)


if __name__ == "__main__":
    main()

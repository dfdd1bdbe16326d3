"""Options that several commands have, and what they stand for."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..data.batches import Shards
    from ..data.preprocess import Preprocessing
    from ..evaluate.conversion import Conversion
    from ..evaluate.processes import Processes
    from ..models import Loaded, Request


def positive(text: str) -> int:
    """Reads the value of an option as an integer of at least 1.

    >>> positive("16")
    16
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


def count(text: str) -> int:
    """Reads the value of an option as an integer of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return number


def add_preprocessing(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how images are made: ``--mean``, ``--std``, ``--resize``,
    ``--crop`` and ``--interpolation``."""
    group = parser.add_argument_group("images, where the model does not say how it takes them")
    group.add_argument("--mean", type=float, nargs="+", help="of each channel, in [0, 1]")
    group.add_argument("--std", type=float, nargs="+", help="of each channel, in [0, 1]")
    group.add_argument("--resize", type=positive, metavar="PIXELS", help="the shorter side")
    group.add_argument("--crop", type=positive, metavar="PIXELS", help="a square in the middle")
    group.add_argument(
        "--interpolation",
        choices=["nearest", "bilinear", "bicubic", "lanczos"],
        default="bilinear",
        help="of --resize (default: %(default)s)",
    )


def preprocessing_of(options: argparse.Namespace) -> "Preprocessing | None":
    """How the options say that images are made; None where the model says so itself.

    Raises:
        ValueError: a size is given without mean and std.
    """
    from ..data.preprocess import Preprocessing

    given = [options.mean, options.std, options.resize, options.crop]
    if all(value is None for value in given):
        return None
    if options.mean is None or options.std is None:
        raise ValueError("mean and std must be given, with resize or crop too")
    return Preprocessing(
        tuple(options.mean),
        tuple(options.std),
        options.resize,
        options.crop,
        options.interpolation,
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which model is meant, and where its weights are."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="torchvision:NAME, timm:NAME, MODULE:FUNCTION, a network that was saved, or demo for "
        "the packaged one",
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help=".safetensors, .pt or .pth: a state dict"
    )
    parser.add_argument(
        "--weights", help="which of torchvision's published weights the checkpoint is"
    )
    parser.add_argument(
        "--num-classes", type=positive, help="of a model of torchvision or timm, if not its default"
    )
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="a model of torchvision or timm without a checkpoint, to see how fast it is",
    )
    add_preprocessing(parser)


def request_of(options: argparse.Namespace) -> "Request":
    """The model that the options ask for."""
    from ..models import Request

    return Request(
        options.model,
        checkpoint=options.checkpoint,
        weights=options.weights,
        classes=options.num_classes,
        random_weights=options.random_weights,
        preprocessing=preprocessing_of(options),
        seed=options.seed,
    )


def add_data(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Adds the options that say which images the network is shown."""
    parser.add_argument(
        "--data",
        required=required,
        metavar="KIND:FOLDER",
        help="cifar10, cifar100, mnist, fashion-mnist, or folder for photos by class; or demo for "
        "the packaged images",
    )
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="the first N images (default: all)"
    )


def add_conversion(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how a model is converted, and on which images."""
    group = parser.add_argument_group("conversion")
    group.add_argument("--preset", default="snm-zero", help="the neuron (default: %(default)s)")
    group.add_argument(
        "--norm",
        choices=["neuron", "channel", "layer"],
        help="what shares a threshold (default: neuron, and channel with --bits)",
    )
    group.add_argument("--statistic", default="max", choices=["max", "percentile", "mse"])
    group.add_argument("--percentile", type=float, default=99.9)
    group.add_argument(
        "--max-spikes", type=positive, help="in one step, of --preset burst and --tune"
    )
    group.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the simulation (default: float32, or that of a saved network)",
    )
    group.add_argument(
        "--tune", action="store_true", help="fit neurons and weights to T time steps"
    )
    group.add_argument(
        "--keep-weights", action="store_true", help="with --tune, fit the neurons alone"
    )
    group.add_argument(
        "--budget", type=float, default=60.0, help="seconds for --tune (default: %(default)s)"
    )
    group.add_argument(
        "--calibration", metavar="KIND:FOLDER", help="images to calibrate and tune on"
    )
    group.add_argument(
        "--calibration-split", default="train", metavar="SPLIT", help="default: %(default)s"
    )
    group.add_argument(
        "--calibration-images",
        type=positive,
        default=1000,
        metavar="N",
        help="drawn at random, the same however many processes (default: %(default)s)",
    )
    group.add_argument("--seed", type=int, default=0, help="what is drawn (default: %(default)s)")


def add_bits(parser: argparse.ArgumentParser) -> None:
    """Adds ``--bits``, which makes a network of integers."""
    parser.add_argument(
        "--bits",
        type=positive,
        metavar="BITS",
        help="make a network of integers with weights of 2 to 8 bits, by the calibration images; "
        "it is exact and the same everywhere",
    )


def add_work(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how the work is done: batches, device, processes."""
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=64,
        metavar="B",
        help="images a shard, whatever the number of processes (default: %(default)s)",
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="default: cuda where there is one"
    )
    parser.add_argument(
        "--workers",
        type=count,
        default=0,
        metavar="N",
        help="processes that read images ahead, for each process (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-corrupt", action="store_true", help="leave corrupt images out, and list them"
    )


def conversion_of(options: argparse.Namespace, timesteps: int | None) -> "Conversion":
    """How the options say that the model is converted.

    Raises:
        ValueError: an option is out of range, or --tune has no time steps.
    """
    from ..evaluate.conversion import Conversion

    if options.tune and timesteps is None:
        raise ValueError("tuning needs timesteps, got none")
    return Conversion(
        preset=options.preset,
        norm=options.norm or ("neuron" if _bits(options) is None else "channel"),
        statistic=options.statistic,
        percentile=options.percentile,
        max_spikes=options.max_spikes,
        dtype=options.dtype,
        tune_for=timesteps if options.tune else None,
        fit_weights=not options.keep_weights,
        budget=options.budget,
        seed=options.seed,
    )


def data_of(options: argparse.Namespace, loaded: "Loaded") -> "Shards":
    """The images that the network is shown, by the options.

    Raises:
        ValueError: the kind or split is unknown, or there is no image.
    """
    from ..data.batches import Shards
    from ..data.datasets import open_dataset

    dataset = open_dataset(options.data, options.split)
    return Shards(
        dataset,
        loaded.preprocess,
        range(min(len(dataset), options.limit or len(dataset))),
        options.batch_size,
        skip_corrupt=options.skip_corrupt,
        workers=options.workers,
    )


def calibration_of(
    options: argparse.Namespace, loaded: "Loaded", default: str | None = None
) -> "Shards | None":
    """The images to calibrate on, by the options; None if the model needs none.

    Args:
        default: ``KIND:FOLDER``, where the options name none.

    Raises:
        ValueError: nothing names them.
    """
    from ..data.batches import Shards
    from ..data.datasets import open_dataset
    from ..network.spiking import SpikingNetwork

    needs = options.tune or _bits(options) is not None
    if isinstance(loaded.model, SpikingNetwork) and not needs:
        return None
    text = options.calibration or default
    if text is None:
        raise ValueError("calibration must name images, KIND:FOLDER, got none")
    dataset = open_dataset(text, options.calibration_split)
    generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(len(dataset), generator=generator)[: options.calibration_images]
    return Shards(
        dataset,
        loaded.preprocess,
        order.tolist(),
        options.batch_size,
        skip_corrupt=options.skip_corrupt,
        workers=options.workers,
    )


def _bits(options: argparse.Namespace) -> int | None:
    """The bits of the weights of a network of integers; None where none is to be made."""
    bits: int | None = getattr(options, "bits", None)
    return bits


def processes_of(options: argparse.Namespace) -> "Processes":
    """The processes that share the work; they wait while one of them tunes.

    Raises:
        ValueError: there is no GPU and one is asked for, or not one for each of them.
    """
    from datetime import timedelta

    from ..evaluate.processes import PATIENCE, Processes

    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda needs an NVIDIA GPU, found none")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    tuning = timedelta(seconds=options.budget if options.tune else 0)
    return Processes(device, patience=PATIENCE + tuning)

"""``snm demo``: converts the packaged network, measures it and draws its accuracy."""

import argparse
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

import snm_kernels

from ..conversion import Norm, convert
from ..conversion.quantization.quantize import quantize
from ..demo.data import MEAN, STD, DemoImages, load_images, load_network
from ..demo.step_by_step import StepByStepNetwork, StepByStepSNM
from ..errors import DeadNeuronWarning
from ..network.spiking import SpikingNetwork
from ..optional import check_installed
from ..tuning import tune

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PACKAGES = ("matplotlib", "rich")
"""The packages that this command needs beside those of snm itself, as they are imported."""

PRESETS = ("snm", "snm-half", "snm-zero", "if-half")
"""The neurons whose accuracies are shown."""
SHOWN_STEPS = (1, 2, 4, 8, 16, 32, 64)
"""The time steps after which accuracies are shown."""
TUNED_STEPS = (1, 2, 4, 8, 16)
"""The numbers of time steps for each of which a network is tuned."""
INTEGER_STEPS = (8, 16, 32)
"""The time steps after which the network of integers is tested."""
TIMED_STEPS = 32
"""The time steps that a timed run has."""
TIMED_INTEGER_STEPS = 8
"""The time steps in which the network of integers classifies all test images."""
BATCH = 100
"""Images in a batch."""


class Timing(NamedTuple):
    """How long the same work takes when done both ways: medians, in seconds."""

    fused: float
    """All time steps in one launch, as this package does it."""
    step_by_step: float
    """One time step after another, as it is published."""

    @property
    def ratio(self) -> float:
        """How many times as fast the fused way is."""
        return self.step_by_step / self.fused


class Beside(NamedTuple):
    """How long networks take for the same images: medians, in seconds."""

    integers: float
    floating: float

    @property
    def ratio(self) -> float:
        """How many times as fast the network of integers is."""
        return self.floating / self.integers


class Results(NamedTuple):
    """What the demo measured."""

    ann_accuracy: float
    """Percent of the test images that the ReLU network classifies right."""
    accuracy: dict[str, list[float]]
    """Preset -> percent right after every time step, up to the last that is shown."""
    tuned: dict[int, float]
    """Time steps -> percent right after as many, of a network tuned for them."""
    integers: dict[int, float]
    """Time steps -> percent right after as many, of the network of integers."""
    silent: str
    """How many neurons stay silent because they never fired in calibration."""
    network: Timing
    """Seconds per image at T = 32."""
    neuron: Timing
    """Seconds per run of one layer of neurons on the same drive."""
    all_images: "Beside"
    """Seconds that the network of integers takes for all test images, and the floating one."""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``snm demo`` to the command line."""
    parser = commands.add_parser(
        "demo", help="convert a packaged network, show accuracy over time steps and speed"
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("snm-demo.png"),
        help="PNG file for the curve (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Runs ``snm demo`` and returns its exit status.

    Raises:
        PackageError: matplotlib or rich is not installed.
    """
    check_installed("snm demo", *PACKAGES, extra="demo")
    from rich.console import Console

    show(Console(), options.picture)
    return 0


def show(console: "Console", picture: Path) -> Results:
    """Measures the packaged network, and prints and draws what it found.

    Args:
        console: where to print.
        picture: the PNG file to write.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        images = load_images()
        # The layout in which CPUs and GPUs convolve fastest.
        model = load_network()
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ann_accuracy = _percent_right(model, images, progress)
        accuracy = {}
        for preset in PRESETS:
            net = _convert(model, images, preset)
            accuracy[preset] = _accuracy_over_time(net, images, preset, progress)
        tuned = {}
        for steps in progress.track(TUNED_STEPS, description="tune for T and test"):
            tuned[steps] = _tuned_accuracy(model, images, steps)
        by_channel = _convert(model, images, "snm-zero", "channel")
        whole = quantize(by_channel, images.calibration_images, pixels=((MEAN,), (STD,)))
        integers = _integer_accuracy(whole, images, progress)
        all_images = _time_integers(whole, by_channel, images, progress)
        net = _convert(model, images, "snm")
        thresholds = torch.cat([neuron.threshold.flatten() for neuron in net.layers.values()])
        silent = f"{int(thresholds.isinf().sum()):,} of {thresholds.numel():,}"
        batch = _channels_last(images.test_images[:BATCH])
        network = _time_network(model, net, batch, progress)
        neuron = _time_neuron(progress)
    results = Results(ann_accuracy, accuracy, tuned, integers, silent, network, neuron, all_images)
    _print(console, results)
    draw(results, picture)
    console.print(f"The curve is in {picture}")
    return results


def _convert(
    model: nn.Module, images: DemoImages, preset: str, norm: Norm = "neuron"
) -> SpikingNetwork:
    calibration = [_channels_last(batch) for batch in images.calibration_images.split(BATCH)]
    with warnings.catch_warnings():
        # Said once, below the table.
        warnings.simplefilter("ignore", DeadNeuronWarning)
        return convert(model, calibration, preset=preset, norm=norm)


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _percent_right(model: nn.Module, images: DemoImages, progress: "Progress") -> float:
    predictions = [
        model(_channels_last(batch)).argmax(1)
        for batch in progress.track(images.test_images.split(BATCH), description="ReLU network")
    ]
    return 100 * float((torch.cat(predictions) == images.test_labels).float().mean())


def _accuracy_over_time(
    net: SpikingNetwork, images: DemoImages, preset: str, progress: "Progress"
) -> list[float]:
    last = SHOWN_STEPS[-1]
    right = torch.zeros(last)
    batches = list(
        zip(images.test_images.split(BATCH), images.test_labels.split(BATCH), strict=True)
    )
    for batch, labels in progress.track(batches, description=f"{preset}, T = 1 to {last}"):
        predictions = net.anytime(_channels_last(batch), timesteps=last).argmax(-1)
        right += (predictions == labels).sum(1)
    return [100 * float(share) for share in right / len(images.test_labels)]


def _integer_accuracy(
    net: SpikingNetwork, images: DemoImages, progress: "Progress"
) -> dict[int, float]:
    """Percent that a network of integers classifies right after so many time steps."""
    right = dict.fromkeys(INTEGER_STEPS, 0)
    batches = list(
        zip(images.test_images.split(BATCH), images.test_labels.split(BATCH), strict=True)
    )
    for batch, labels in progress.track(batches, description="integers, 8 bits"):
        predictions = net.anytime(batch, timesteps=max(INTEGER_STEPS)).argmax(-1)
        for steps in INTEGER_STEPS:
            right[steps] += int((predictions[steps - 1] == labels).sum())
    return {steps: 100 * count / len(images.test_labels) for steps, count in right.items()}


def _time_integers(
    integers: SpikingNetwork, floating: SpikingNetwork, images: DemoImages, progress: "Progress"
) -> Beside:
    """Seconds that both networks take for all test images."""
    batches = [_channels_last(batch) for batch in images.test_images.split(BATCH)]

    def classify(net: SpikingNetwork) -> None:
        for batch in batches:
            net(batch, timesteps=TIMED_INTEGER_STEPS)

    seconds = _time(
        lambda: classify(integers),
        lambda: classify(floating),
        progress.track(range(3), description="time of all images"),
    )
    return Beside(seconds.fused, seconds.step_by_step)


def _tuned_accuracy(model: nn.Module, images: DemoImages, steps: int) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeadNeuronWarning)
        net = tune(model, _channels_last(images.calibration_images), steps).net
    predictions = [
        net(_channels_last(batch), timesteps=steps).argmax(1)
        for batch in images.test_images.split(BATCH)
    ]
    return 100 * float((torch.cat(predictions) == images.test_labels).float().mean())


def _time_network(
    model: nn.Module, net: SpikingNetwork, batch: Tensor, progress: "Progress"
) -> Timing:
    """Seconds per image that the network takes, both ways."""
    thresholds = {path: neuron.threshold for path, neuron in net.layers.items()}
    published = StepByStepNetwork(model, thresholds)
    seconds = _time(
        lambda: net(batch, timesteps=TIMED_STEPS),
        lambda: published(batch, TIMED_STEPS),
        progress.track(range(3), description="time per image"),
    )
    return Timing(seconds.fused / len(batch), seconds.step_by_step / len(batch))


def _time_neuron(progress: "Progress") -> Timing:
    """Seconds that a layer of neurons alone takes on a drive, both ways."""
    generator = torch.Generator().manual_seed(0)
    drive = torch.randn(TIMED_STEPS, 64, 128, 7, 7, generator=generator)
    threshold = torch.rand(128, 7, 7, generator=generator) + 0.5
    out = torch.empty_like(drive)

    @torch.no_grad()
    def published() -> None:
        neuron = StepByStepSNM(threshold)
        for t in range(TIMED_STEPS):
            out[t] = neuron(drive[t])

    def fused() -> None:
        snm_kernels.snm(drive, threshold, out=out)

    return _time(fused, published, progress.track(range(9), description="time of the neuron"))


def _time(
    fused: Callable[[], object], published: Callable[[], object], rounds: Iterable[int]
) -> Timing:
    """Seconds that each takes: the median over rounds that time both in turn, after a warm-up."""
    fused()
    published()
    seconds: dict[str, list[float]] = {"fused": [], "published": []}
    for _ in rounds:
        for name, work in (("fused", fused), ("published", published)):
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return Timing(median(seconds["fused"]), median(seconds["published"]))


def _print(console: "Console", results: Results) -> None:
    from rich.table import Table

    table = Table(title="Accuracy in percent, Fashion-MNIST, 2,000 test images, NeuronNorm")
    table.add_column("time steps", justify="right")
    for preset in PRESETS:
        table.add_column(preset, justify="right")
    table.add_column("tuned for T", justify="right")
    table.add_column("integers", justify="right")
    table.add_column("ReLU network", justify="right")
    for steps in SHOWN_STEPS:
        row = [f"{results.accuracy[preset][steps - 1]:.2f}" for preset in PRESETS]
        for found in (results.tuned, results.integers):
            row.append(f"{found[steps]:.2f}" if steps in found else "")
        table.add_row(str(steps), *row, f"{results.ann_accuracy:.2f}")
    console.print(table)
    console.print(f"{results.silent} neurons never fired in calibration and stay silent.")
    console.print("Integers: int8 weights, snm-zero, one threshold a channel.")
    timings = Table(title=f"T = {TIMED_STEPS}, {torch.get_num_threads()} threads, medians")
    timings.add_column("")
    timings.add_column("fused", justify="right")
    timings.add_column("published step by step", justify="right")
    timings.add_column("ratio", justify="right")
    for name, timing in (
        ("network, per image", results.network),
        ("neurons alone, 12.8 million neuron-steps", results.neuron),
    ):
        timings.add_row(
            name,
            f"{1e3 * timing.fused:.2f} ms",
            f"{1e3 * timing.step_by_step:.2f} ms",
            f"{timing.ratio:.1f}",
        )
    console.print(timings)
    both = results.all_images
    console.print(
        f"All 2,000 test images at T = {TIMED_INTEGER_STEPS}: {both.integers:.2f} s in integers, "
        f"{both.floating:.2f} s in float32, {both.ratio:.1f} times as long"
    )


def draw(results: Results, picture: Path) -> None:
    """Draws accuracy against the number of time steps.

    Args:
        results: what to draw.
        picture: the PNG file to write.
    """
    from matplotlib.figure import Figure

    # Colours of Okabe and Ito, told apart by markers as well.
    styles = {
        "snm": ("#0072B2", "o"),
        "snm-half": ("#009E73", "s"),
        "snm-zero": ("#D55E00", "D"),
        "if-half": ("#777777", "^"),
    }
    figure = Figure(figsize=(7.2, 4.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    axes.axhline(results.ann_accuracy, color="black", linewidth=1, linestyle=(0, (5, 3)))
    axes.annotate(
        f"ReLU network {results.ann_accuracy:.1f} %",
        (1, results.ann_accuracy),
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=9,
    )
    for preset, (color, marker) in styles.items():
        accuracy = results.accuracy[preset]
        axes.plot(
            range(1, len(accuracy) + 1),
            accuracy,
            color=color,
            linewidth=1.8,
            marker=marker,
            markersize=5,
            markevery=[step - 1 for step in SHOWN_STEPS],
            label=preset,
        )
    axes.plot(
        list(results.tuned),
        list(results.tuned.values()),
        color="black",
        linewidth=0,
        marker="*",
        markersize=9,
        label="tuned for T",
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(SHOWN_STEPS, [str(step) for step in SHOWN_STEPS])
    axes.set_xlabel("time steps T")
    axes.set_ylabel("test accuracy in percent")
    axes.set_ylim(0, 103)
    axes.set_title("Fashion-MNIST: a trained VGG run as a spiking network", loc="left", fontsize=11)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", title="preset")
    figure.savefig(picture)

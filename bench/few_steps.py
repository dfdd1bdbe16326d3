"""Measures networks in few time steps, with presets, tuned, and stopped early; writes a record.

    python bench/few_steps.py bench/records/few-steps/MACHINE.json
    python bench/render.py --update

Three quarters of an hour on one thread. Needs what requirements-peers.txt lists, and Fashion-MNIST
for the two networks that it trains first and keeps in build/.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import snm
from snm.bench.conversions import photos, published
from snm.bench.few_steps_networks import NETWORKS, Case
from snm.bench.record import Row, begin, read

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""The folder in which Debian's package dataset-fashion-mnist puts Fashion-MNIST."""
NORM = "neuron"
"""The norm that every network is converted with."""
UNTIL_PRESET = "snm-zero"
"""The preset of the network that is stopped early without being tuned."""
PRESETS = ("snm", "snm-half", "snm-zero", "if-half")
"""The presets that are measured."""
NORMS = ("channel", "layer")
"""The norms that one network is converted with as well."""
FIRST_PASS_PRESET = "if-half"
"""The preset that is measured with a first pass."""
FIRST_PASSES = ("srp", "cos")
"""The methods of first passes that are measured."""
FIRST_PASS_STEPS = (2, 4, 8)
"""The numbers of time steps that a first pass takes, and the simulation after it too."""
STEPS = (2, 4, 8, 16)
"""The numbers of time steps that accuracy is measured at."""
GRADED = 4
"""How many spikes a neuron may send in one step where spikes are graded."""
GRADED_STEPS = (2, 4)
"""The numbers of time steps that networks with graded spikes are tuned for."""
BATCH = 100
"""How many images are simulated at once."""
UNTIL_STEPS = 8
"""How many time steps the tuned network that is stopped early is tuned for, and takes at most."""
AGREEMENT = 0.995
"""The agreement that stopping early has to keep."""
STOP_IMAGES = 2000
"""How many of the images stopping early is calibrated on; it is measured on the others."""
MOST_STEPS = (32, 64)
"""The most time steps that an image takes: the second number where the first is too small for the
agreement."""
ROUNDS = 5
"""How many rounds are timed."""
TIMED_IMAGES = 1000
"""How many images are timed, at most."""
TIMED_BATCH = 250
"""How many images are simulated at once where time is measured."""
DIAGNOSED = "packaged"
"""The network that is diagnosed, and that is measured with all norms."""
DIAGNOSED_STEPS = 8
"""How many time steps are diagnosed."""
DIAGNOSED_IMAGES = 500
"""How many images are diagnosed, at most."""
PHOTO_STEPS = (8, 16, 32)
"""The numbers of time steps that photos are simulated for."""


def classes(network: nn.Module, images: Tensor, **arguments: Any) -> Tensor:
    """The class that each image gets, int64 ``[N]``."""
    return torch.cat([network(batch, **arguments).argmax(1) for batch in images.split(BATCH)])


def classes_by_step(net: snm.SpikingNetwork, images: Tensor, steps: int) -> Tensor:
    """The class that each image has after each step, int64 ``[T, N]``."""
    parts = [net.anytime(batch, timesteps=steps).argmax(2) for batch in images.split(BATCH)]
    return torch.cat(parts, 1)


class Figures:
    """Measures one network in all ways.

    Args:
        name: the network's name.
        case: the network and its images.
        add: takes the rows of the record, one by one.
    """

    def __init__(self, name: str, case: Case, add: Callable[[Row], None]) -> None:
        self.name = name
        self.case = case
        self.add = add
        self.relu = classes(case.model, case.images)

    def note(self, suite: str, **figures: Any) -> None:
        """Adds a row on the network to the record."""
        self.add({"suite": suite, "network": self.name, **figures})

    def add_all(self) -> None:
        """Measures the network in all ways and adds all rows."""
        case = self.case
        self.note(
            "network",
            about=case.about,
            images=len(case.images),
            calibration=len(case.calibration),
            parameters=sum(parameter.numel() for parameter in case.model.parameters()),
            **self.rated(self.relu, case.model),
        )
        tuned = {steps: self.tuned(steps, 1) for steps in STEPS}
        for steps in GRADED_STEPS:
            self.tuned(steps, GRADED)
        for steps in STEPS:
            self.tuned(steps, 1, weights=False)
        presets = {}
        variants = [(preset, NORM) for preset in PRESETS]
        if self.name == DIAGNOSED:
            variants += [(UNTIL_PRESET, norm) for norm in NORMS]
        for preset, norm in variants:
            net = snm.convert(case.model, case.calibration, preset=preset, norm=norm)
            presets[preset, norm] = net
            found = classes_by_step(net, case.images, max(STEPS))
            for steps in STEPS:
                self.note(
                    "accuracy",
                    method=preset,
                    norm=norm,
                    timesteps=steps,
                    **self.rated(found[steps - 1]),
                )
        for method in FIRST_PASSES:
            for steps in FIRST_PASS_STEPS:
                self.after_first_pass(presets[FIRST_PASS_PRESET, NORM], method, steps)
        self.stopped(UNTIL_PRESET, presets[UNTIL_PRESET, NORM], self.case.model, MOST_STEPS)
        self.stopped("tuned", tuned[UNTIL_STEPS], None, (UNTIL_STEPS,))
        if self.name == DIAGNOSED:
            for name in ("snm", "snm-zero"):
                self.diagnosed(name, presets[name, NORM])
            self.diagnosed("tuned", tuned[DIAGNOSED_STEPS])

    def after_first_pass(self, net: snm.SpikingNetwork, method: str, steps: int) -> None:
        """Adds the accuracy with membranes that start where a first pass says."""
        first_pass = snm.FirstPass(method, steps=steps)
        found = classes(net, self.case.images, timesteps=steps, first_pass=first_pass)
        self.note(
            "accuracy",
            method=FIRST_PASS_PRESET,
            norm=NORM,
            first_pass=method,
            timesteps=steps,
            **self.rated(found),
        )

    def rated(
        self, found: Tensor, network: nn.Module | None = None, **arguments: int
    ) -> dict[str, float]:
        """The share of right answers, and that of the ReLU network's answers; if the calibration
        images have labels, also the share of right answers to all images together."""
        case = self.case
        right = found == case.labels
        rated = {
            "accuracy": right.double().mean().item(),
            "agreement": (found == self.relu).double().mean().item(),
        }
        if case.calibration_labels is not None and network is not None:
            others = classes(network, case.calibration, **arguments) == case.calibration_labels
            rated["accuracy_of_all"] = torch.cat([right, others]).double().mean().item()
        return rated

    def tuned(self, steps: int, max_spikes: int, *, weights: bool = True) -> snm.SpikingNetwork:
        """Tunes the network for a number of time steps and adds what came of it."""
        start = time.perf_counter()
        tuned = snm.tune(
            self.case.model,
            self.case.calibration,
            timesteps=steps,
            max_spikes=max_spikes,
            weights=weights,
        )
        seconds = time.perf_counter() - start
        found = classes(tuned.net, self.case.images, timesteps=steps)
        self.note(
            "accuracy",
            method="tuned",
            norm=NORM,
            timesteps=steps,
            max_spikes=max_spikes,
            weights=weights,
            **self.rated(found, tuned.net, timesteps=steps),
            seconds=seconds,
            chosen=tuned.chosen,
            fitted_to=tuned.fitted_to,
            held_back=tuned.held_back,
            complete=tuned.complete,
        )
        return tuned.net

    def stopped(
        self,
        method: str,
        net: snm.SpikingNetwork,
        model: nn.Module | None,
        most_steps: Sequence[int],
    ) -> None:
        """Compares stopping each image when it may stop with the fixed number of steps that agrees
        as often, with the ReLU network or, if that is None, with the network's last step."""
        seen, images = self.case.images.split([STOP_IMAGES, len(self.case.images) - STOP_IMAGES])
        row = {
            "method": method,
            "agreeing_with": "ReLU network" if model is not None else f"T = {most_steps[-1]}",
            "asked": AGREEMENT,
            "seen": len(seen),
            "images": len(images),
        }
        stop = calibrated_stop(net, model, seen, most_steps)
        if stop is None:
            self.note("until", **row, refused=most_steps[-1])
            return
        by_step = classes_by_step(net, images, stop.max_steps)
        wanted = by_step[-1] if model is None else self.relu[STOP_IMAGES:]
        answers = [net.until(batch, stop) for batch in images.split(BATCH)]
        agreement = share_equal(torch.cat([answer.predictions for answer in answers]), wanted)
        agreements = [share_equal(found, wanted) for found in by_step]
        reaching = (t for t, found in enumerate(agreements, start=1) if found >= agreement)
        fixed = next(reaching, stop.max_steps)
        timed = images[:TIMED_IMAGES].split(TIMED_BATCH)
        seconds = seconds_in_turn(
            lambda: [net.until(batch, stop) for batch in timed],
            lambda: [net(batch, timesteps=fixed) for batch in timed],
        )
        self.note(
            "until",
            **row,
            agreement=agreement,
            mean_steps=torch.cat([answer.steps for answer in answers]).double().mean().item(),
            calibrated_agreement=stop.agreement,
            agreement_at_least=stop.agreement_at_least,
            calibrated_mean_steps=stop.mean_steps,
            most_steps=stop.max_steps,
            fixed_steps=fixed,
            fixed_agreement=agreements[fixed - 1],
            timed=sum(map(len, timed)),
            batch=TIMED_BATCH,
            seconds=statistics.median(seconds[0]),
            fixed_seconds=statistics.median(seconds[1]),
            time_over_fixed=statistics.median(a / b for a, b in zip(*seconds, strict=True)),
        )

    def diagnosed(self, method: str, net: snm.SpikingNetwork) -> None:
        """Adds what each layer of the network loses."""
        images = self.case.images[:DIAGNOSED_IMAGES]
        found = snm.diagnose(net, self.case.model, images, timesteps=DIAGNOSED_STEPS)
        for path, layer in found.layers.items():
            self.note(
                "diagnosis",
                method=method,
                timesteps=DIAGNOSED_STEPS,
                images=len(images),
                layer=path,
                activation=layer.activation,
                error=layer.error.absolute,
                parts={part: figures.absolute for part, figures in layer.parts.items()},
                saturated=layer.saturated,
                negative=layer.negative,
                advice=found.advice,
            )


def with_first_images(case: Case, count: int | None) -> Case:
    """A case with only the first test images; with all of them if ``count`` is None."""
    if count is None or count >= len(case.images):
        return case
    about = f"the first {count:,} of {case.about}"
    return case._replace(images=case.images[:count], labels=case.labels[:count], about=about)


def calibrated_stop(
    net: snm.SpikingNetwork, model: nn.Module | None, images: Tensor, most_steps: Sequence[int]
) -> snm.Stop | None:
    """When images may stop; None if the agreement is out of reach, for which calibration raises."""
    for most in most_steps:
        with suppress(ValueError):
            return snm.calibrate_stop(net, model, images, agreement=AGREEMENT, max_steps=most)
    return None


def share_equal(found: Tensor, wanted: Tensor) -> float:
    """The share of images whose classes are equal."""
    return (found == wanted).double().mean().item()


def seconds_in_turn(*contenders: Callable[[], object]) -> list[list[float]]:
    """How many seconds each contender took in every round, in which all of them run in turn."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for contender in contenders:
        contender()
    for _ in range(ROUNDS):
        for contender, taken in zip(contenders, seconds, strict=True):
            start = time.perf_counter()
            contender()
            taken.append(time.perf_counter() - start)
    return seconds


def efficientnet(add: Callable[[Row], None]) -> None:
    """Counts right answers on 20 photos; the network for each half of them is tuned on the other
    half and its mirror images."""
    model, _ = published("efficientnet_lite0")
    model.to(memory_format=torch.channels_last)
    images, labels = photos()
    right = int((classes(model, images) == labels).sum())
    about: Row = {"network": "efficientnet_lite0", "photos": len(images), "ann": right}
    halves = [torch.arange(start, len(images), 2) for start in (0, 1)]
    for steps in PHOTO_STEPS:
        found = {"snm-zero": 0, "tuned": 0}
        seconds, chosen, complete = 0.0, [], True
        for tested, seen in (halves, halves[::-1]):
            calibration = torch.cat([images[seen], images[seen].flip(3)])
            net = snm.convert(model, calibration, preset="snm-zero", norm="channel")
            start = time.perf_counter()
            tuned = snm.tune(net, calibration, timesteps=steps)
            seconds += time.perf_counter() - start
            chosen.append(tuned.chosen)
            complete &= tuned.complete
            for name, made in (("snm-zero", net), ("tuned", tuned.net)):
                answers = classes(made, images[tested], timesteps=steps)
                found[name] += int((answers == labels[tested]).sum())
        add(
            {
                "suite": "photos",
                **about,
                "timesteps": steps,
                "right": found,
                "seconds": seconds / len(halves),
                "chosen": chosen,
                "complete": complete,
            }
        )


@torch.no_grad()
def main() -> None:
    names = (*NETWORKS, "efficientnet_lite0")
    parser = argparse.ArgumentParser(description="Measures few time steps; writes a record.")
    parser.add_argument("record", type=Path)
    parser.add_argument(
        "--only", nargs="*", choices=names, help="these networks; others stay in the record"
    )
    parser.add_argument(
        "--fashion-mnist", type=Path, default=FASHION_MNIST, help="folder of the four idx files"
    )
    parser.add_argument("--images", type=int, help="only this many of the test images, the first")
    options = parser.parse_args()
    warnings.simplefilter("ignore", snm.DeadNeuronWarning)
    record = begin("full", "cpu")
    options.record.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[Row]] = {name: [] for name in names}
    if options.only:
        kept = read(options.record).rows if options.record.exists() else []
        rows |= {name: [row for row in kept if row["network"] == name] for name in names}
    for name in options.only or names:
        rows[name] = []

        def add(row: Row, name: str = name) -> None:
            print(row, flush=True)
            rows[name].append(row)
            replace(record, rows=list(chain.from_iterable(rows.values()))).write(options.record)

        if name in NETWORKS:
            case = NETWORKS[name](options.fashion_mnist)
            Figures(name, with_first_images(case, options.images), add).add_all()
        else:
            efficientnet(add)


if __name__ == "__main__":
    main()

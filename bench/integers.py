"""Measures networks of integers beside floating ones, ReLU networks and rivals; writes a record.

    python bench/integers.py bench/records/integers/MACHINE.json
    python bench/render.py --update

Needs what requirements-peers.txt lists, and MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000
for memory that stays mapped. With --only it measures some suites, and replaces their rows in the
record if there is one.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import snm
from snm.bench.few_steps_networks import BUILT, NETWORKS, PIXELS
from snm.bench.models import MODELS, Model, sparse
from snm.bench.record import Row, begin, read
from snm.bench.timed.network import SpikingJelly, quantized
from snm.bench.timing import HEAP
from snm.demo.step_by_step import StepByStepNetwork
from snm.errors import DeadNeuronWarning
from snm.nn.integer import IntegerConv
from snm.reports.count.peak import Peak

TIMED = {"VGG-16, 32×32": (4, 32), "ResNet-18, 64×64": (32,)}
"""The networks that are timed, and for how many time steps."""
ROUNDS = 7
ACCURATE = ("packaged", "digit-recognizer")
"""The networks whose accuracy is measured."""
STEPS = (8, 16, 32)
TUNED_STEPS = (2, 4)
BATCH = 100


def medians(contenders: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """The seconds that each contender took in every round, in which all run in turn."""
    for run in contenders.values():
        run()
        run()
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
    return taken


class Density(snm.Observer):
    """Counts which share of neurons sends at a time step, layer by layer."""

    def __init__(self) -> None:
        self.shares: dict[str, list[float]] = {}

    def asks(self, fire: Any) -> tuple[str, ...]:  # noqa: ARG002
        return ("spikes",)

    def see(self, launch: snm.Launch) -> None:
        assert launch.spikes is not None
        share = launch.spikes.ne(0).float().mean().item()
        self.shares.setdefault(launch.fire.path, []).append(share)

    def means(self) -> dict[str, float]:
        return {path: statistics.mean(shares) for path, shares in self.shares.items()}


def networks(add: Callable[[Row], None]) -> None:
    """Times whole networks in turn with their rivals."""
    for name, all_steps in TIMED.items():
        model = trained_alike(name)
        net, integers = quantized(model)
        by_events = snm.by_events(net, model.images)
        for steps in all_steps:
            watch = Density()
            integers.simulation(model.images, timesteps=steps, observers=[watch]).answer()
            shares = watch.means()
            many = model.images.repeat(steps, 1, 1, 1)
            many = many.contiguous(memory_format=torch.channels_last)
            contenders: dict[str, Callable[[], object]] = {
                "integers": partial(integers, model.images, timesteps=steps),
                "snm": partial(net, model.images, timesteps=steps),
                "snm, by events": partial(by_events, model.images, timesteps=steps),
                "ReLU, all steps": partial(model.network, many),
                "ReLU, one pass": partial(model.network, model.images),
                "SpikingJelly": spikingjelly(model, steps),
            }
            if "ResNet" not in name:
                thresholds = {path: n.threshold for path, n in net.layers.items()}
                published = StepByStepNetwork(model.network, thresholds)
                contenders["published"] = partial(published, model.images, steps)
            taken = medians(contenders)
            for contender, seconds in taken.items():
                ratio = [a / b for a, b in zip(taken["integers"], seconds, strict=True)]
                add(
                    {
                        "suite": "network",
                        "network": name,
                        "contender": contender,
                        "timesteps": steps,
                        "images": len(model.images),
                        "heap": HEAP,
                        "seconds": statistics.median(seconds),
                        "integers_of_it": statistics.median(ratio),
                        "densities": [min(shares.values()), max(shares.values())],
                        "dense": sum(
                            layer.path == "dense"
                            for layer in integers.model.modules()
                            if isinstance(layer, IntegerConv)
                        ),
                        "layers": len(shares),
                    }
                )
        for kind, made in (("snm", net), ("integers", integers)):
            # Weights are packed by an earlier call.
            peak = Peak(torch.device("cpu"))
            with peak.measured(1):
                made(model.images, timesteps=max(all_steps))
            held = {t.data_ptr(): t.nbytes for t in (*made.parameters(), *made.buffers())}
            for layer in made.model.modules():
                if isinstance(layer, IntegerConv):
                    held |= {t.data_ptr(): t.nbytes for t in layer.packed}
            add(
                {
                    "suite": "memory",
                    "network": name,
                    "contender": kind,
                    "timesteps": max(all_steps),
                    "bytes": peak.bytes,
                    "weights": sum(held.values()),
                }
            )


DENSITY = 0.115
"""The share of neurons that send at a time step, which each layer comes near to."""


def trained_alike(name: str) -> Model:
    """A network with random weights, whose layers send as often as those of trained networks do.

    The biases of batch norms are set, three times, by how often layers sent before.
    """
    layout = {"memory_format": torch.channels_last}
    shares = [DENSITY / 2]
    for _ in range(3):
        torch.manual_seed(0)
        model = sparse(MODELS[name](), shares)
        network = model.network.requires_grad_(False).to(**layout)
        model = Model(network, *(images.contiguous(**layout) for images in model[1:]))
        norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        net = snm.convert(network, model.calibration, preset="snm-zero", norm="channel")
        watch = Density()
        net.simulation(model.images, timesteps=32, observers=[watch]).answer()
        found = list(watch.means().values())
        if len(found) != norms:
            # Some drive sums, so which sends how often is not told by its order.
            return model
        shares = (shares * norms)[:norms]
        shares = [share * DENSITY / now for share, now in zip(shares, found, strict=True)]
    return model


def spikingjelly(model: Model, steps: int) -> Callable[[], object]:
    """SpikingJelly's converted network, all time steps at once."""
    other = SpikingJelly(model)
    other.images = model.images.expand(steps, *model.images.shape)
    return other


def packaged(add: Callable[[Row], None]) -> None:
    """Times the packaged network on all its test images."""
    case = NETWORKS["packaged"](BUILT)
    net = snm.convert(case.model, case.calibration, preset="snm-zero", norm="channel")
    integers = snm.quantize(net, case.calibration)

    def all_images(network: snm.SpikingNetwork) -> None:
        for batch in case.images.split(BATCH):
            network(batch, timesteps=8)

    taken = medians({"integers": partial(all_images, integers), "snm": partial(all_images, net)})
    ratio = [a / b for a, b in zip(*taken.values(), strict=True)]
    for contender, seconds in taken.items():
        add(
            {
                "suite": "packaged",
                "contender": contender,
                "timesteps": 8,
                "images": len(case.images),
                "heap": HEAP,
                "seconds": statistics.median(seconds),
                "integers_of_it": statistics.median(ratio) if contender == "snm" else 1.0,
            }
        )


def accuracy(add: Callable[[Row], None]) -> None:
    """Counts right answers of networks of integers, and of those that they are made of."""
    for name in ACCURATE:
        case = NETWORKS[name](BUILT)
        pixels = PIXELS[name]
        net = snm.convert(case.model, case.calibration, preset="snm-zero", norm="channel")
        made: dict[str, tuple[snm.SpikingNetwork, tuple[int, ...]]] = {"snm-zero": (net, STEPS)}
        for steps in TUNED_STEPS:
            tuned = snm.tune(net, case.calibration, timesteps=steps).net
            made[f"tuned for {steps}"] = tuned, (steps,)
        for method, (network, all_steps) in made.items():
            kinds = {"snm": network}
            for bits in (8, 6, 4):
                kinds[f"{bits} bits"] = snm.quantize(
                    network, case.calibration, bits=bits, pixels=pixels
                )
            for kind, each in kinds.items():
                for steps in all_steps:
                    right = 0
                    batches = zip(case.images.split(BATCH), case.labels.split(BATCH), strict=True)
                    for images, labels in batches:
                        right += int((each(images, timesteps=steps).argmax(1) == labels).sum())
                    add(
                        {
                            "suite": "accuracy",
                            "network": name,
                            "method": method,
                            "contender": kind,
                            "timesteps": steps,
                            "right": right,
                            "images": len(case.images),
                        }
                    )


SUITES = {"accuracy": accuracy, "network": networks, "packaged": packaged}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("record", type=Path, nargs="?", help="the JSON file to write")
    parser.add_argument("--only", choices=SUITES, nargs="+", help="measure these suites")
    options = parser.parse_args()
    chosen = options.only or list(SUITES)
    record = begin("integers", "cpu")
    if options.only and options.record is not None and options.record.exists():
        replaced = {"memory" if name == "network" else name for name in chosen} | set(chosen)
        kept = (row for row in read(options.record).rows if row["suite"] not in replaced)
        record.rows.extend(kept)

    def add(row: Row) -> None:
        record.rows.append(row)
        print(json.dumps(row, ensure_ascii=False), flush=True)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeadNeuronWarning)
        for name, suite in SUITES.items():
            if name in chosen:
                suite(add)
                if options.record is not None:
                    record.write(options.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())

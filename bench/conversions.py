"""Converts every model of tests/support/zoo.py, and EfficientNet-Lite0 on photos; writes a record.

    python bench/conversions.py bench/records/conversions/MACHINE.json
    python bench/render.py --update

A quarter of an hour on two cores. Needs what requirements-peers.txt lists.
"""

import argparse
import json
import sys
import time
import warnings
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, fx, nn

import snm
import snm_kernels
from snm.bench.packages import package_folder
from snm.conversion.lowering.prepare import prepare
from snm.demo.step_by_step import StepByStepNetwork
from snm_kernels import SNMOutput

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.dyadic import vgg16  # noqa: E402
from support.zoo import MODELS, published, torchvision_model  # noqa: E402

TIMESTEPS = 64
IMAGES = 4
PHOTO_STEPS = (32, 64, 128)
PHOTO_PRESETS = ("snm", "snm-half", "snm-zero", "if-half")
PRESET, NORM = "snm-half", "neuron"
REFUSED = ("mobilenet_v3_small", "efficientnet_b0", "vit_b_16")


def activations_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The activations of the ReLU network, by the path of the layer of neurons."""
    prepared = prepare(model, images, "direct", "mean")
    found: dict[str, Tensor] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if n in prepared.paths:
                found[prepared.paths[n]] = result
            return result

    Watch(prepared.traced.root, graph=prepared.traced.graph).run(images)
    return found


def rates_of(net: snm.SpikingNetwork, images: Tensor, timesteps: int) -> dict[str, Tensor]:
    """What each neuron sends per time step on average, by the path of its layer."""
    rates: dict[str, Tensor] = {}

    def note(path: str, neuron: Any, _drive: object, output: SNMOutput) -> None:
        rates[path] = neuron.amplitude(output.state.m) / timesteps

    hooks = [n.register_forward_hook(partial(note, path)) for path, n in net.layers.items()]
    net(images, timesteps=timesteps)
    for hook in hooks:
        hook.remove()
    return rates


@torch.no_grad()
def conversion(name: str) -> dict[str, Any]:
    """The row of a model that was converted: how far its rates are from its activations."""
    model, _ = published(name)
    images = torch.randn(IMAGES, *MODELS[name].size)
    row: dict[str, Any] = {"model": name, "image": list(images.shape[1:])}
    start = time.perf_counter()
    net = snm.convert(model, images, preset=PRESET, norm=NORM)
    row["seconds"] = time.perf_counter() - start
    row["layers"] = len(net.layers)
    row["tracer"] = net.tracer
    activations, rates = activations_of(model, images), rates_of(net, images, TIMESTEPS)
    row["neurons"] = sum(rate[0].numel() for rate in rates.values())
    difference = sum(float((rates[p] - activations[p]).abs().sum()) for p in rates)
    activity = sum(float(activations[p].sum()) for p in rates)
    row["difference"] = difference / (row["neurons"] * IMAGES)
    row["activation"] = activity / (row["neurons"] * IMAGES)
    return row


def refusal(name: str) -> dict[str, Any]:
    """The row of a published model that is refused, with the operations that are why."""
    report = snm.convertible(torchvision_model(name).eval(), torch.randn(2, 3, 224, 224))
    operations = sorted({offence.operation for offence in report.offences})
    return {"model": name, "operations": operations, "count": len(report.offences)}


def photos() -> tuple[Tensor, Tensor]:
    """The 20 photos of ImageNet that foolbox packages, as EfficientNet-Lite takes them, and their
    labels."""
    folder = package_folder("foolbox") / "data"
    images, labels = [], []
    for path in sorted(folder.glob("imagenet_*.jpg")):
        photo = Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        pixels = torch.frombuffer(bytearray(photo.tobytes()), dtype=torch.uint8)
        images.append((pixels.view(224, 224, 3).permute(2, 0, 1).float() - 127) / 128)
        labels.append(int(path.stem.rpartition("_")[2]))
    return torch.stack(images).contiguous(memory_format=torch.channels_last), torch.tensor(labels)


@torch.no_grad()
def efficientnet() -> dict[str, Any]:
    """Counts right answers on 20 photos; the network for each half of them is calibrated on the
    other half and its mirror images."""
    model, _ = published("efficientnet_lite0")
    model.to(memory_format=torch.channels_last)
    images, labels = photos()
    result: dict[str, Any] = {
        "photos": len(images),
        "ann": int((model(images).argmax(1) == labels).sum()),
        "steps": list(PHOTO_STEPS),
        "right": {},
    }
    halves = [torch.arange(start, len(images), 2) for start in (0, 1)]
    for preset in PHOTO_PRESETS:
        right = dict.fromkeys(PHOTO_STEPS, 0)
        for tested, seen in (halves, halves[::-1]):
            calibration = torch.cat([images[seen], images[seen].flip(3)])
            net = snm.convert(model, calibration, preset=preset, norm="channel")
            answers = net.anytime(images[tested], timesteps=max(PHOTO_STEPS)).argmax(2)
            for steps in PHOTO_STEPS:
                right[steps] += int((answers[steps - 1] == labels[tested]).sum())
        result["right"][preset] = list(right.values())
    return result


@torch.no_grad()
def drift(timesteps: int) -> float:
    """The share of neurons that send another number of spikes with the published float memory than
    with a count of spikes, in a VGG-16 with random weights, all else being the same."""
    torch.manual_seed(0)
    model = vgg16()
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    images = torch.rand(4, 3, 32, 32)
    net = snm.convert(model, torch.rand(4, 3, 32, 32), norm="neuron")
    thresholds = {path: neuron.threshold for path, neuron in net.layers.items()}
    counts = []
    for float_memory in (True, False):
        run = StepByStepNetwork(model, thresholds, float_memory=float_memory)
        sent = {path: torch.zeros(()) for path in thresholds}

        def note(path: str, neuron: Any, _drive: object, amplitude: Tensor, sent: Any) -> None:
            sent[path] = sent[path] + (amplitude / neuron.threshold).round()

        for path, neuron in run.neurons.items():
            neuron.register_forward_hook(partial(note, path, sent=sent))
        run(images, timesteps)
        counts.append(torch.cat([count.flatten() for count in sent.values()]))
    return float((counts[0] != counts[1]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Converts published models; writes a record.")
    parser.add_argument("record", type=Path)
    parser.add_argument("--only", nargs="*", choices=MODELS, help="these models alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore", snm.DeadNeuronWarning)
    rows = []
    for name in options.only or MODELS:
        rows.append(conversion(name))
        print(rows[-1], flush=True)
    record: dict[str, Any] = {
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "snm": snm_kernels.__version__,
        "threads": torch.get_num_threads(),
        "timesteps": TIMESTEPS,
        "images": IMAGES,
        "preset": PRESET,
        "norm": NORM,
        "models": rows,
    }
    if not options.only:
        record["refused"] = [refusal(name) for name in REFUSED]
        record["drift"] = {steps: drift(steps) for steps in (32, 128)}
        print(record["refused"], record["drift"], flush=True)
        record["photos"] = efficientnet()
        print(record["photos"], flush=True)
    options.record.parent.mkdir(parents=True, exist_ok=True)
    options.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

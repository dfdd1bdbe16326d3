"""Lays out the result of an evaluation as text, for a terminal."""

from collections.abc import Mapping
from typing import Any

from ..table import table


def tables_of(result: Mapping[str, Any]) -> str:
    """The tables that show the result of :func:`snm.evaluate.run.evaluate`."""
    images, steps = result["images"], len(result["right"])
    rows = [("T", "accuracy %", "agreement %")]
    rows += [
        (str(t + 1), _percent(result["accuracy"][t]), _percent(result["agreement"][t]))
        for t in _shown(steps)
    ]
    rows.append(("ReLU network", _percent(result["relu_accuracy"]), ""))
    layers = [("layer", "neurons", "spikes an image", "a neuron and step")]
    for path, layer in result["layers"].items():
        sent = layer["spikes"] / images
        rate = sent / layer["neurons"] / steps
        layers.append((path, f"{layer['neurons']:,}", f"{sent:,.1f}", f"{rate:.4f}"))
    total = sum(layer["spikes"] for layer in result["layers"].values()) / images
    neurons = sum(layer["neurons"] for layer in result["layers"].values())
    layers.append(("all", f"{neurons:,}", f"{total:,.1f}", f"{total / neurons / steps:.4f}"))
    shards = result["shards"]
    computing = sum(shard["seconds"] for shard in shards)
    parts = [
        f"{images:,} images, {steps} time steps, {result['silent']:,} thresholds silent",
        "",
        table(rows),
        "",
        table(layers),
        "",
        f"{result['seconds']:.1f} s, {result['preparation_seconds']:.1f} s of them to load and "
        f"calibrate; {computing:.1f} s of computing on shards, of {result['processes']} "
        f"process{'' if result['processes'] == 1 else 'es'} together",
    ]
    for name, where in (("corrupt", ""), ("corrupt_calibration", " of calibration")):
        if corrupt := result[name]:
            parts += ["", f"{len(corrupt)} corrupt{where}, left out:"]
            parts += [f"  {image}" for image in corrupt]
    return "\n".join(parts)


def _shown(steps: int) -> list[int]:
    """The time steps that are shown, counted from 0: each power of two, and the last."""
    powers = [2**n - 1 for n in range(steps.bit_length()) if 2**n <= steps]
    return sorted({*powers, steps - 1})


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"

"""Networks of integers for hardware: their constants, and what it has to compute with them."""

import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..network.inputs import check_direct
from ..network.recording import LayerRecording
from ..network.spiking import SpikingNetwork
from ..nn.integer import IntegerNeuron, Pixels
from .testbench_header import header_of
from .testbench_layers import Array, Layers, layers_of

__all__ = ["write_testbench"]

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@torch.no_grad()
def write_testbench(
    net: SpikingNetwork,
    images: Tensor,
    folder: str | os.PathLike[str],
    *,
    timesteps: int,
    layers: str | Iterable[str] | None = None,
    prefix: str = "snm",
) -> None:
    """Writes what a chip or an FPGA is built and tested from: a network of integers as constants,
    and golden vectors that it has to give, bit for bit.

    - ``network.npz``: ``layers``, the paths of all layers in order of execution, and of each
      ``"<path>.<name>"``: its kind, the numbers of the values that it reads and makes, its sizes
      and its constants, in C order, int8, int32, and float64 for what one of the integers is worth
      (``unit`` of the readout, ``step`` and ``zero`` of ``pixels``).
    - ``network.h``: the same as constants of C99, with a table of the layers. A comment says what
      each kind of layer computes.
    - ``vectors.npz``: ``timesteps``; ``input``, the integers that the first layer reads, int32
      ``[B, ...]``; of the chosen layers of neurons ``"<path>.spikes"``, int8 ``[T, B, ...]``, and
      ``"<path>.membranes"`` after every step, int32; of those that are read out
      ``"<path>.counts"``, int32 ``[B, ...]``; with readout="mean" ``sums``, int64, and ``logits``,
      float32, which are all that a call returns.

    Args:
        net: of integers, as :func:`snm.quantize` makes it, with encoder="direct".
        images: ``[B, ...]``, as the network takes them. Sizes are those of one of them.
        folder: made if it is not there; files of these names are replaced.
        timesteps: T, >= 1.
        layers: paths of layers of neurons of which there are to be spikes and membranes, which take
            5 bytes for each neuron, image and time step; None for all.
        prefix: what all names in the header begin with; include guard and macros in capitals.

    Raises:
        ConversionError: the network has operations that are none of the layers of the header, such
            as concatenation; it names each, and nothing is written.
        TypeError: net is no SpikingNetwork; or images or timesteps are of the wrong type.
        ValueError: the network is not one of integers, or has another encoder; there are no images;
            prefix is no name in C; layers or timesteps are not as they must be.
        OSError: a file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> from torch import nn
    >>> from snm import convert, quantize
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> images = torch.rand(32, 4)
    >>> net = quantize(convert(model, images, norm="channel"), images)
    >>> with TemporaryDirectory() as folder:
    ...     write_testbench(net, images[:2], folder, timesteps=5)
    ...     with np.load(f"{folder}/vectors.npz") as vectors:
    ...         print(vectors["1.spikes"].shape, vectors["sums"].dtype)
    (5, 2, 8) int64
    """
    _check(net, prefix)
    steps = net.checked_timesteps(timesteps)
    assert steps is not None
    net.inputs.check(images)
    if len(images) == 0:
        raise ValueError("write_testbench: images must hold at least one, got none")
    written = layers_of(net, images.shape[1:])
    vectors = _vectors(net, written, images, steps, layers)
    most = min(n.most_steps for n in net.layers.values() if isinstance(n, IntegerNeuron))
    files = {
        "network.npz": _npz(_constants(net, written)),
        "vectors.npz": _npz(vectors),
        "network.h": header_of(written, prefix, most).encode("ascii"),
    }
    into = Path(folder)
    into.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (into / name).write_bytes(content)


def _check(net: object, prefix: str) -> None:
    if not isinstance(net, SpikingNetwork):
        raise TypeError(f"write_testbench: net must be a SpikingNetwork, got {type(net).__name__}")
    if not net.integers:
        raise ValueError(
            "write_testbench: takes a network of integers; make one of it with snm.quantize first"
        )
    check_direct("write_testbench", net.encoder)
    if not isinstance(prefix, str) or not _IDENTIFIER.fullmatch(prefix):
        raise ValueError(
            "write_testbench: prefix must be letters, digits and underscores, a letter first, "
            f"got {prefix!r}"
        )


def _vectors(
    net: SpikingNetwork,
    written: Layers,
    images: Tensor,
    timesteps: int,
    layers: str | Iterable[str] | None,
) -> dict[str, Array]:
    """What the network computes of images."""
    with net.record(layers, what=("spikes", "membrane")) as recording:
        simulation = net.simulation(images, timesteps=timesteps)
        logits = simulation.answer()
    run = simulation.run
    counts = run.counts()
    made: dict[str, Any] = {
        "timesteps": torch.tensor(timesteps, dtype=torch.int32),
        "input": _pixels(net)(images),
    }
    path: str
    layer: LayerRecording
    for path, layer in recording.items():
        made |= {f"{path}.spikes": layer.spikes, f"{path}.membranes": layer.membrane}
    for fire in net.program.neurons:
        if fire.read_out:
            made[f"{fire.path}.counts"] = counts[fire.name]
    if written.sums is not None:
        sums = run.execute_tail(run.means(counts, timesteps))[written.sums]
        made |= {"sums": sums.to(torch.int64), "logits": logits}
    return {name: np.asarray(value.cpu().numpy(), order="C") for name, value in made.items()}


def _constants(net: SpikingNetwork, written: Layers) -> dict[str, Array]:
    """All that ``network.npz`` holds."""
    pixels = _pixels(net)
    made: dict[str, Any] = {
        "layers": [layer.path for layer in written.layers],
        "values": np.array(written.places, np.int32),
        "output": written.output,
        "pixels.step": pixels.step.cpu().numpy(),
    }
    if pixels.zero is not None:
        made["pixels.zero"] = pixels.zero.cpu().numpy()
    for layer in written.layers:
        own: dict[str, Any] = {
            "kind": layer.kind,
            "part": layer.part,
            "reads": layer.reads,
            "makes": layer.makes,
            **layer.fields,
            **layer.arrays,
        }
        if layer.kind == "neurons":
            own["counts"] = layer.counts
        for name, value in own.items():
            is_whole = isinstance(value, int | tuple)
            made[f"{layer.path}.{name}"] = np.array(value, np.int32) if is_whole else value
    return {name: np.asarray(value) for name, value in made.items()}


def _pixels(net: SpikingNetwork) -> Pixels:
    """What makes integers of images."""
    [pixels] = (module for module in net.model.modules() if isinstance(module, Pixels))
    return pixels


def _npz(arrays: dict[str, Array]) -> bytes:
    """An archive of NumPy's."""
    file = io.BytesIO()
    # One by one, for the names are the network's.
    named: dict[str, Any] = arrays
    np.savez_compressed(file, **named)
    return file.getvalue()

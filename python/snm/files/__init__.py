"""Saves spiking networks to files and loads them; nothing in a file can run code.

A file is a safetensors file with parameters, buffers and thresholds, and two entries of metadata.
``snm`` is a JSON object with three entries: ``format`` is 1; ``version`` is that of the snm-kernels
that wrote it; ``network`` has the program that is executed, the modules by class and arguments, the
neurons' rules, the encoder, the readout and so on. ``sha256`` is the digest of that text and of
every tensor's name, dtype, shape and bytes; it reveals damage. A file cannot run code because
loading knows a fixed list of operations, layers and types of values, and makes nothing else.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

import snm_kernels

from ..network.spiking import SpikingNetwork
from .as_json import Refusal, described, entries
from .blueprint import blueprint_of, build
from .whole import write_whole

_FORMAT = 1
"""The number of the format that files are written in, and the newest that can be read."""
_TEXT = "snm"
"""The metadata entry with the JSON text that describes the network."""
_DIGEST = "sha256"
"""The metadata entry with the digest of the text and the tensors."""


def save(net: SpikingNetwork, path: str | os.PathLike[str]) -> None:
    """Saves a network to one file, tensors and graph; :func:`load` gives the same network.

    The file is a ``.safetensors`` file with the graph as JSON in its metadata; see
    :mod:`snm.files`. An older file is replaced only when the new one is complete. The state that
    :meth:`SpikingNetwork.step` goes on from is not saved.

    Args:
        net: a network on any device; its tensors are saved in their dtype and memory format.
        path: where to write the file; the folder must exist.

    Raises:
        ValueError: before its first neuron the network holds an operation or a layer that files
            cannot hold, or a module has forward hooks; the message names it. Nothing is written.
        TypeError: ``net`` is not a :class:`SpikingNetwork`.
        OSError: the file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
    >>> with TemporaryDirectory() as folder:
    ...     save(net, f"{folder}/net.safetensors")
    ...     same = load(f"{folder}/net.safetensors")
    >>> torch.equal(same(images, timesteps=8), net(images, timesteps=8))
    True
    """
    if type(net) is not SpikingNetwork:
        raise TypeError(f"snm.save: net must be a SpikingNetwork, got {type(net).__name__}")
    try:
        graph, tensors = blueprint_of(net)
        text = json.dumps(
            {"format": _FORMAT, "version": snm_kernels.__version__, "network": graph},
            allow_nan=False,
        )
        # Building the network here makes sure that the file can be loaded.
        build(json.loads(text)["network"], tensors, torch.device("cpu"))
    except Refusal as refusal:
        raise ValueError(f"snm.save: {refusal}") from refusal
    metadata = {_TEXT: text, _DIGEST: _digest(text, tensors)}
    write_whole(Path(path), save_tensors(tensors, metadata))


def load(path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> SpikingNetwork:
    """Loads a network that :func:`save` saved; it gives the same results.

    Nothing in the file is executed or unpickled, whoever wrote it.

    Args:
        path: the file.
        device: where the network is to be.

    Raises:
        ValueError: the file is damaged, was not written by :func:`save`, was written by a newer
            version, or holds anything but a network.
        FileNotFoundError: there is no file.

    >>> from tempfile import TemporaryDirectory
    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> with TemporaryDirectory() as folder:
    ...     save(convert(model, torch.rand(32, 4), readout="count"), f"{folder}/net.safetensors")
    ...     net = load(f"{folder}/net.safetensors")
    >>> net(torch.rand(2, 4), timesteps=16).dtype
    torch.int32
    """
    device = torch.device(device)
    try:
        metadata, tensors = _read(Path(path))
        text = metadata.get(_TEXT)
        if text is None or _DIGEST not in metadata:
            raise Refusal("is a safetensors file, but none that snm.save wrote")
        if _digest(text, tensors) != metadata[_DIGEST]:
            raise Refusal("is damaged: its content does not match its digest")
        return build(_network(text), tensors, device)
    except RecursionError as error:
        raise ValueError(f"snm.load: {path}: its graph is nested too deeply") from error
    except Refusal as refusal:
        raise ValueError(f"snm.load: {path}: {refusal}") from refusal


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Reads a file's metadata and its tensors, the latter into memory of their own."""
    try:
        with safe_open(path, framework="pt") as file:
            # safe_open gives tensors that are the file's pages, which other programs may change.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return dict(file.metadata() or {}), tensors
    except SafetensorError as error:
        raise Refusal(f"is no complete safetensors file: {error}") from error


def _network(text: str) -> Any:
    """The graph of a network, as JSON, from a file's text; refuses a format that is not known."""
    try:
        parts = entries(json.loads(text), "the text of a file")
    except ValueError as error:
        raise Refusal(f"holds no JSON: {error}") from error
    number, version = parts.get("format"), described(parts.get("version"))
    if type(number) is not int or number < 1:
        raise Refusal(f"has no format number, but {described(number)}")
    if number > _FORMAT:
        raise Refusal(
            f"is written by a newer version of snm-kernels, {version}: format {number}, but this "
            f"one reads up to {_FORMAT}; upgrade snm-kernels"
        )
    if "network" not in parts:
        raise Refusal("holds no network")
    return parts["network"]


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 digest of a file's text and tensors."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        head = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        digest.update(b"\0" + head.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

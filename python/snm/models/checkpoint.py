"""Reads weights from files, puts them into models, and takes their digests."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

_WRAPPERS = ("state_dict", "model")
_PARALLEL = "module."
_SHOWN = 10


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Puts a file's weights into a model.

    Args:
        model: the model, for which the file has to hold all weights and no others.
        path: a state dict, ``.safetensors``, or ``.pt``, ``.pth`` or ``.bin`` as ``torch.save``
            writes it, also inside of ``{"state_dict": ...}`` or ``{"model": ...}`` and with
            ``DataParallel``'s prefix. Nothing but tensors is unpickled.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the file is no state dict, or not this model's; it lists what differs.

    >>> from tempfile import TemporaryDirectory
    >>> model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "weights.pt")
    ...     torch.save({"state_dict": other.state_dict()}, path)
    ...     load_checkpoint(model, path)
    >>> torch.equal(model.weight, other.weight)
    True
    """
    weights = _read(path)
    own = model.state_dict()
    differences = [f"missing {name}" for name in own if name not in weights]
    differences += [f"unexpected {name}" for name in weights if name not in own]
    differences += [
        f"{name} is {list(weights[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if differences:
        rest = len(differences) - _SHOWN
        more = [f"and {rest} more"] if rest > 0 else []
        raise ValueError(
            f"checkpoint must hold the model's weights, but in {path}:\n  "
            + "\n  ".join([*differences[:_SHOWN], *more])
        )
    model.load_state_dict(weights)


def digest_of(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers, their names, dtypes and shapes.

    >>> a, b = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> digest_of(a) == digest_of(a), digest_of(a) == digest_of(b)
    (True, False)
    """
    return digest_of_tensors(module.state_dict())


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors, with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint must be a file, got {path}, which is not one")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file: {error}") from error
    # torch.load raises these for a damaged file, and for one that holds more than tensors.
    except (RuntimeError, EOFError, KeyError, OSError, UnpicklingError) as error:
        raise ValueError(f"{path} must hold tensors as torch.save writes them: {error}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise ValueError(
            f"{path} must hold a state dict, tensors by name, got {type(content).__name__}"
        )
    if content and all(name.startswith(_PARALLEL) for name in content):
        content = {name.removeprefix(_PARALLEL): value for name, value in content.items()}
    return dict(content)

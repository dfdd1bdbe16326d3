"""Loads models by the names that a command line gives them, with what makes their images."""

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..data.packaged import NAME
from ..data.preprocess import Preprocess, Preprocessing
from ..files import load
from ..network.spiking import SpikingNetwork
from ..optional import import_optional
from .checkpoint import digest_of, load_checkpoint
from .kept import kept_preprocessing
from .packaged import packaged_network


class Request(NamedTuple):
    """What a command line says about the model that it asks for."""

    source: str
    """``torchvision:NAME``, ``timm:NAME``, ``MODULE:FUNCTION``, a file of :func:`snm.save`, or
    ``demo``."""
    checkpoint: Path | None = None
    """The file of its weights; see :func:`snm.models.checkpoint.load_checkpoint`."""
    weights: str | None = None
    """Which of torchvision's published weights the checkpoint is, for their preprocessing."""
    classes: int | None = None
    """How many classes a model of torchvision or timm has; None for its default."""
    random_weights: bool = False
    """Whether a model of torchvision or timm may do without a checkpoint."""
    preprocessing: Preprocessing | None = None
    """How its images are made, instead of the model's own way; None for that."""
    seed: int = 0
    """The seed for weights that are drawn at random."""


class Loaded(NamedTuple):
    """A model that is ready for images."""

    model: nn.Module
    """In evaluation mode, on the CPU: a ReLU network, float32, or a :class:`SpikingNetwork`."""
    preprocess: Preprocess
    """Makes an image ``[C, H, W]`` of a picture."""
    digest: str
    """SHA-256 of its weights."""


def load_model(request: Request) -> Loaded:
    """Loads the model that was asked for. Nothing is downloaded.

    Raises:
        ValueError: the source is unknown, weights are missing or are not its own, or nothing says
            how its images are made.
        FileNotFoundError: a file is not there.
        TypeError: a function returns something else than a module, or a module and a function.
        PackageError: torchvision or timm is needed and not installed.

    >>> loaded = load_model(
    ...     Request("snm.demo.data:load_network", preprocessing=Preprocessing((0.5,), (0.5,)))
    ... )
    >>> type(loaded.model).__name__, len(loaded.digest)
    ('SmallVGG', 64)
    """
    kind, _, name = request.source.partition(":")
    torch.manual_seed(request.seed)
    own: Preprocess | None = None
    if kind in ("torchvision", "timm") and name:
        if request.checkpoint is None and not request.random_weights:
            raise ValueError(
                f"{request.source} has random weights, and nothing is downloaded; give "
                "a checkpoint, or say that random weights are meant"
            )
        model, own = (_torchvision if kind == "torchvision" else _timm)(name, request)
    elif request.source == NAME:
        model, own = packaged_network()
    elif Path(request.source).is_file() or request.source.endswith(".safetensors"):
        if request.checkpoint is not None:
            raise ValueError("a file of snm.save holds its weights; leave checkpoint out")
        model = load(request.source)
        own = kept_preprocessing(model)
    elif re.fullmatch(r"[\w.]+:\w+", request.source):
        model, own = _called(kind, name)
    else:
        raise ValueError(
            "model must be torchvision:NAME, timm:NAME, MODULE:FUNCTION, a file of "
            f"snm.save, or {NAME}, got {request.source!r}"
        )
    if request.checkpoint is not None:
        load_checkpoint(model, request.checkpoint)
    if not isinstance(model, SpikingNetwork):
        model = model.float()
    preprocess = request.preprocessing or own
    if preprocess is None:
        raise ValueError(
            f"nothing says how {request.source} takes its images; give mean and std, "
            "and resize and crop where needed"
        )
    return Loaded(model.eval(), preprocess, digest_of(model))


def _torchvision(name: str, request: Request) -> tuple[nn.Module, Preprocessing | None]:
    models = import_optional("torchvision.models", "torchvision", request.source)
    if name not in models.list_models(models):
        raise ValueError(f"model must be one of torchvision's, got {name!r}")
    options: dict[str, Any] = {} if request.classes is None else {"num_classes": request.classes}
    if name in ("inception_v3", "googlenet"):
        options["init_weights"] = False
    model: nn.Module = models.get_model(name, weights=None, **options)
    if request.preprocessing is not None:
        return model, None
    published = list(models.get_model_weights(name))
    chosen = [weights for weights in published if _is_meant(weights, request)]
    if request.weights is not None and not chosen:
        names = ", ".join(weights.name for weights in published)
        raise ValueError(f"weights must be one of {names}, got {request.weights!r}")
    found = {_of_torchvision(weights.transforms()) for weights in chosen or published}
    if len(found) > 1:
        names = ", ".join(weights.name for weights in published)
        raise ValueError(
            f"the published weights of {name} take images made in several ways; say "
            f"which the checkpoint is, {names}, or give mean and std"
        )
    return model, next(iter(found), None)


def _is_meant(weights: Any, request: Request) -> bool:
    """Whether the checkpoint is these weights, as far as is said or its file's name tells."""
    if request.weights is not None:
        return bool(weights.name == request.weights)
    published = weights.url.rpartition("/")[2]
    return request.checkpoint is not None and request.checkpoint.name == published


def _of_torchvision(preset: Any) -> Preprocessing:
    return Preprocessing(
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        interpolation=preset.interpolation.value,
    )


def _timm(name: str, request: Request) -> tuple[nn.Module, Preprocessing | None]:
    timm = import_optional("timm", "timm", request.source)
    if not timm.is_model(name):
        raise ValueError(f"model must be one of timm's, got {name!r}")
    options: dict[str, Any] = {} if request.classes is None else {"num_classes": request.classes}
    model: nn.Module = timm.create_model(name, pretrained=False, **options)
    config = timm.data.resolve_data_config({}, model=model)
    channels, height, width = config["input_size"]
    if config.get("crop_mode", "center") != "center" or height != width or channels not in (1, 3):
        return model, None
    return model, Preprocessing(
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize=int(height / config["crop_pct"]),
        crop=height,
        interpolation=config["interpolation"],
    )


def _called(module: str, function: str) -> tuple[nn.Module, Preprocess | None]:
    """Calls a module's function for its model; the module may be in the working directory."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        made = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        raise ValueError(
            "model must be MODULE:FUNCTION of a module that can be imported, got "
            f"{module}:{function}: {error}"
        ) from error
    except AttributeError as error:
        raise ValueError(
            f"model must be MODULE:FUNCTION, but {module} has no {function}"
        ) from error
    result = made()
    model, preprocess = result if isinstance(result, tuple) else (result, None)
    if not isinstance(model, nn.Module) or not (preprocess is None or callable(preprocess)):
        raise TypeError(
            f"{module}:{function} must return a torch.nn.Module, or one and a function "
            f"that makes images of pictures, got {result!r}"
        )
    return model, preprocess

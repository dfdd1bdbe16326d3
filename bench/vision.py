"""Makes models of torchvision, whichever torch it was built for."""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import nn

from snm.bench.packages import package_folder

# A library takes back what it declares when it is collected.
_LIBRARIES: list[torch.library.Library] = []


@cache
def torchvision_models() -> Any:
    """The module ``torchvision.models``, which needs none of torchvision's compiled operations. If
    they were built for another torch they do not load, and what the import needs is declared."""
    folder = package_folder("torchvision")
    try:
        torch.ops.load_library(folder / "_C.so")
    except OSError:
        declared = torch.library.Library("torchvision", "DEF")
        declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(declared)
    return import_module("torchvision.models")


def torchvision_model(name: str, **options: Any) -> nn.Module:
    """The model of torchvision with that name, its weights drawn at random."""
    return getattr(torchvision_models(), name)(weights=None, **options)

"""Makes of a picture what a network takes."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..optional import import_optional
from .samples import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

Preprocess = Callable[[Picture], Tensor]
"""Makes an image, float32 ``[C, H, W]``, of a picture."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
"""How a picture may be resized; names of Pillow's."""


@dataclass(frozen=True)
class Preprocessing:
    """Resizes and crops a picture, scales it to [0, 1] and standardises it.

    Args:
        mean: of each channel, in [0, 1]: three make of every picture a coloured one, one a grey
            one.
        std: of each channel, > 0.
        resize: pixels of the shorter side; None to leave the size.
        crop: side of the square that is cut out of the middle, in pixels; None for all.
        interpolation: of :data:`INTERPOLATIONS`.

    Raises:
        ValueError: a value is out of range, or there are not one or three of them.

    >>> grey = Preprocessing(mean=(0.5,), std=(0.25,), crop=2)
    >>> grey(np.full((4, 4), 255, np.uint8))
    tensor([[[2., 2.],
             [2., 2.]]])
    >>> Preprocessing.from_json(grey.to_json()) == grey
    True
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    crop: int | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ValueError(
                "Preprocessing: mean and std must both have one or three values, got "
                f"{list(self.mean)} and {list(self.std)}"
            )
        if not all(value > 0 for value in self.std):
            raise ValueError(f"Preprocessing: std must be > 0, got {list(self.std)}")
        for name in ("resize", "crop"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise ValueError(f"Preprocessing: {name} must be at least 1, got {size}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"Preprocessing: interpolation must be one of {', '.join(INTERPOLATIONS)}, "
                f"got {self.interpolation!r}"
            )

    def __call__(self, picture: Picture) -> Tensor:
        """The image that a picture becomes, float32 ``[C, H, W]``.

        Raises:
            ValueError: it is smaller than the crop, or coloured and there is one mean.
            PackageError: it has to be resized, and Pillow is not installed.
        """
        pixels = picture if isinstance(picture, np.ndarray) else self._pixels_of(picture)
        if self.resize is not None and isinstance(picture, np.ndarray):
            pictures = import_optional("PIL.Image", "pillow", "resizing")
            pixels = self._pixels_of(pictures.fromarray(picture))
        if self.crop is not None:
            pixels = _cropped(pixels, self.crop)
        if pixels.ndim == 3 and len(self.mean) == 1:
            raise ValueError(
                "Preprocessing: mean must have three values for coloured images, got one"
            )
        values = torch.from_numpy(pixels.astype(np.float32))
        values = values.permute(2, 0, 1).contiguous() if pixels.ndim == 3 else values.unsqueeze(0)
        scale = torch.tensor([self.mean, self.std])[:, :, None, None]
        return values.div(255.0).sub(scale[0]).div(scale[1])

    def to_json(self) -> str:
        """All that it consists of, as a text that :meth:`from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Preprocessing":
        """The preprocessing that :meth:`to_json` wrote down.

        Raises:
            ValueError: the text is none that it writes.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or set(values) != {field.name for field in fields(cls)}:
            raise ValueError(f"Preprocessing: the text must be that of to_json, got {text!r}")
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def _pixels_of(self, picture: "Image") -> np.ndarray:
        coloured = picture.convert("L" if len(self.mean) == 1 else "RGB")
        if self.resize is not None and min(coloured.size) != self.resize:
            shorter = min(coloured.size)
            width, height = (self.resize * side // shorter for side in coloured.size)
            pictures = import_optional("PIL.Image", "pillow", "resizing")
            how = getattr(pictures.Resampling, self.interpolation.upper())
            coloured = coloured.resize((width, height), how)
        return np.asarray(coloured)


def description_of(preprocess: Preprocess) -> str:
    """How images are made, as a text that is the same in every process and run.

    >>> description_of(Preprocessing(mean=(0.5,), std=(0.25,)))[:32]
    '{"mean": [0.5], "std": [0.25], "'
    """
    if isinstance(preprocess, Preprocessing):
        return preprocess.to_json()
    kind = preprocess if hasattr(preprocess, "__qualname__") else type(preprocess)
    return f"{kind.__module__}.{kind.__qualname__}"


def _cropped(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise ValueError(
            f"Preprocessing: images must be at least {side} pixels high and wide to be cropped, "
            f"got {height} × {width}; give a resize"
        )
    top, left = round((height - side) / 2), round((width - side) / 2)
    return pixels[top : top + side, left : left + side]

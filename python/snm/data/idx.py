"""Reads MNIST and Fashion-MNIST from their idx files."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .samples import ArrayDataset

_UNSIGNED_BYTES = 0x08
_FOLDERS = ("", "raw", "MNIST/raw", "FashionMNIST/raw")
_ENDINGS = ("-idx{}-ubyte", "-idx{}-ubyte.gz", ".idx{}-ubyte", ".idx{}-ubyte.gz")
_PREFIXES = {"train": "train", "test": "t10k"}


def mnist(folder: Path, split: str) -> ArrayDataset:
    """Reads MNIST, Fashion-MNIST or another data set in their form.

    Args:
        folder: holds the idx files, gzipped or not, itself or in ``raw/``, ``MNIST/raw/`` or
            ``FashionMNIST/raw/``.
        split: ``"train"`` or ``"test"``.

    Raises:
        FileNotFoundError: the files are not there.
        ValueError: the split is unknown, or a file is damaged.

    Source: the layout of the files: LeCun, Cortes, Burges, "The MNIST database of handwritten
    digits"; Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017, arXiv:1708.07747.
    """
    if split not in _PREFIXES:
        raise ValueError(f"split must be train or test, got {split!r}")
    prefix = _PREFIXES[split]
    pictures = _find(folder, f"{prefix}-images", 3)
    images, labels = read_idx(pictures, 3), read_idx(_find(folder, f"{prefix}-labels", 1), 1)
    return ArrayDataset(images, labels, pictures.name)


def read_idx(path: Path, dims: int) -> npt.NDArray[np.uint8]:
    """Reads the array of unsigned bytes in an idx file.

    Args:
        path: the file, gzipped if its name ends in ``.gz``.
        dims: how many dimensions it must have.

    Raises:
        ValueError: the file is of another type, cut short or too long.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    ...     read_idx(path, 1).tolist()
    [7, 8, 9]
    """
    content = _bytes_of(path)
    magic = bytes([0, 0, _UNSIGNED_BYTES, dims])
    if content[:4] != magic:
        raise ValueError(
            f"{path} must start with {magic.hex()}, idx of unsigned bytes in {dims} "
            f"dimensions, got {content[:4].hex() or 'nothing'}"
        )
    header = 4 + 4 * dims
    if len(content) < header:
        raise ValueError(f"{path} must hold at least {header} bytes, got {len(content)}")
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], dtype=">u4"))
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise ValueError(
            f"{path} must hold {expected:,} bytes for {list(shape)}, got {len(content):,}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def _bytes_of(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a complete gzip file: {error}") from error


def _find(folder: Path, stem: str, dims: int) -> Path:
    names = [f"{stem}{ending.format(dims)}" for ending in _ENDINGS]
    for inside in _FOLDERS:
        for name in names:
            if (path := folder / inside / name).is_file():
                return path
    places = ", ".join(inside or "the folder itself" for inside in _FOLDERS)
    raise FileNotFoundError(
        f"{folder} must hold {names[0]} or {names[1]}, in {places}, got none of them"
    )

"""Reads photos in a folder for each class, as ImageNet's are."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..optional import import_optional
from .samples import CorruptImage, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

_SPLITS = {"test": ("test", "val", "validation"), "train": ("train",)}


class PhotoDataset:
    """Photos whose folders are their classes, in alphabetical order.

    Args:
        folder: holds the classes' folders; or a folder of the split's name (for ``"test"`` also
            ``val`` or ``validation``) that does.
        split: ``"test"``, ``"train"``, or another folder's name.

    Raises:
        FileNotFoundError: the folder holds no such folder.
        PackageError: torchvision, which lists them, or Pillow is not installed.
    """

    def __init__(self, folder: Path, split: str) -> None:
        readers = import_optional("torchvision.datasets", "torchvision", "a folder of photos")
        import_optional("PIL.Image", "pillow", "decoding photos")
        self.folder = _inside(folder, split)
        listed = readers.ImageFolder(self.folder)
        self.files: list[tuple[str, int]] = listed.samples
        self.classes: list[str] = listed.classes

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        path, label = self.files[index]
        return Sample(decoded(Path(path)), label, path)

    def digest(self) -> str:
        names = [f"{Path(path).relative_to(self.folder)} {label}" for path, label in self.files]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()


def decoded(path: Path) -> "Image":
    """Decodes the picture in a file, to its end.

    Raises:
        CorruptImage: the file is of no format that Pillow knows, or is damaged.
        OSError: the file cannot be read.
        PackageError: Pillow is not installed.
    """
    pictures = import_optional("PIL.Image", "pillow", "decoding photos")
    try:
        image: Image = pictures.open(path)
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # A file that is not there or cannot be read has an error number; damage has none.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CorruptImage(f"{path} is corrupt: {error}") from error
    return image


def _inside(folder: Path, split: str) -> Path:
    names = _SPLITS.get(split, (split,))
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    if split == "test" and folder.is_dir() and not (folder / "train").is_dir():
        return folder
    raise FileNotFoundError(
        f"{folder} must hold a folder {' or '.join(names)} for split {split!r}, got none"
    )

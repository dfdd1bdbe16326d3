"""Finds the folders of packages without importing them."""

from importlib.util import find_spec
from pathlib import Path


def package_folder(name: str) -> Path:
    """The folder of a package, which is not imported.

    Raises:
        ModuleNotFoundError: the package is not installed; the error has its name.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"needs {name}: pip install --no-deps --requirement requirements-peers.txt", name=name
        )
    return Path(spec.origin).parent

"""Where packages lie that are read, or need to be prepared for, without an import."""

from importlib.util import find_spec
from pathlib import Path


def package_folder(name: str) -> Path:
    """The folder of a package, which is not imported.

    Raises:
        ModuleNotFoundError: it is not installed; of that name.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"needs {name}: pip install --no-deps --requirement requirements-peers.txt", name=name
        )
    return Path(spec.origin).parent

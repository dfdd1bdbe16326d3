"""Optional packages, imported where a call needs them."""

from importlib import import_module
from types import ModuleType


class PackageError(RuntimeError):
    """An optional package is missing, or does not load beside this torch."""


def needed(module: str, package: str, purpose: str) -> ModuleType:
    """Imports a module of an optional package.

    Args:
        module: its full name.
        package: what to install for it.
        purpose: what needs it, for the message.

    Raises:
        PackageError: it cannot be imported; it says why.

    >>> needed("json", "json", "the example").__name__
    'json'
    >>> needed("no_such_module", "no-such-package", "the example")
    Traceback (most recent call last):
    ...
    snm.optional.PackageError: the example needs no-such-package, which does not load: \
No module named 'no_such_module'
    """
    try:
        return import_module(module)
    # A torchvision built for another torch fails with RuntimeError or OSError.
    except (ImportError, RuntimeError, OSError) as error:
        raise PackageError(f"{purpose} needs {package}, which does not load: {error}") from error

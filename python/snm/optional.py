"""The one way to ask for packages that may be missing: they are checked, or imported, by a call."""

import importlib.util
from importlib import import_module
from types import ModuleType


class PackageError(ModuleNotFoundError):
    """An optional package is not installed, or does not load beside this torch."""


def check_installed(caller: str, *packages: str, extra: str) -> None:
    """Refuses a call or a command that needs packages which are not installed; imports none.

    Args:
        caller: what needs them, for the message.
        packages: their names, as they are imported.
        extra: the extra of ``snm-kernels`` that brings them.

    Raises:
        PackageError: some are not installed; it names them, and the extra.

    >>> check_installed("to_json", "json", "no_such_package", extra="interchange")
    Traceback (most recent call last):
    ...
    snm.optional.PackageError: to_json needs no_such_package: \
pip install 'snm-kernels[interchange]'
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise PackageError(
            f"{caller} needs {', '.join(missing)}: pip install 'snm-kernels[{extra}]'",
            name=missing[0],
        )


def import_optional(module: str, package: str, purpose: str) -> ModuleType:
    """Imports a module of a package that no extra brings, or that may not load.

    Args:
        module: its full name.
        package: what to install for it.
        purpose: what needs it, for the message.

    Raises:
        PackageError: it cannot be imported; it says why.

    >>> import_optional("json", "json", "the example").__name__
    'json'
    >>> import_optional("no_such_module", "no-such-package", "the example")
    Traceback (most recent call last):
    ...
    snm.optional.PackageError: the example needs no-such-package, which does not load: \
No module named 'no_such_module'
    """
    try:
        return import_module(module)
    # A torchvision built for another torch fails with RuntimeError or OSError.
    except (ImportError, RuntimeError, OSError) as error:
        raise PackageError(
            f"{purpose} needs {package}, which does not load: {error}", name=module
        ) from error

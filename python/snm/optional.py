"""Asks for packages that may be missing: the only place that checks or imports them."""

import importlib.util
from importlib import import_module
from types import ModuleType


class PackageError(ModuleNotFoundError):
    """Says that an optional package is not installed, or does not load with this torch."""


def check_installed(caller: str, *packages: str, extra: str) -> None:
    """Refuses a call or a command if packages that it needs are not installed; imports nothing.

    Args:
        caller: the function or command that needs them, for the message.
        packages: the names under which they are imported.
        extra: the extra of ``snm-kernels`` that installs them.

    Raises:
        PackageError: some are not installed; the message names them and the extra.

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
    """Imports a module of a package that no extra installs, or that may fail to load.

    Args:
        module: the full name of the module.
        package: the package to install for it.
        purpose: what the module is needed for, for the message.

    Raises:
        PackageError: the module cannot be imported; the message says why.

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

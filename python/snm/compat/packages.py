"""Checks that the packages which a library of networks needs are installed."""

import importlib.util


def check_installed(caller: str, *packages: str) -> None:
    """Refuses a call that needs packages which are not installed.

    Raises:
        ModuleNotFoundError: it names them, and the extra that brings them.

    >>> check_installed("to_json", "json", "no_such_package")
    Traceback (most recent call last):
    ...
    ModuleNotFoundError: to_json needs no_such_package: pip install 'snm-kernels[interchange]'
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"{caller} needs {', '.join(missing)}: pip install 'snm-kernels[interchange]'",
            name=missing[0],
        )

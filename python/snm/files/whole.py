"""Files that are there completely, or not at all: the one place that writes a file in two steps."""

import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file beside the one it then replaces, so that there is always a complete one.

    Args:
        path: where to; the folder must exist.
        content: all of the file.

    Raises:
        OSError: the file cannot be written; an older one stays.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_whole(Path(folder, "a"), b"b")
    ...     [path.name for path in Path(folder).iterdir()]
    ['a']
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            file.write(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)

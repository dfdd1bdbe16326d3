"""Writes files that are there completely or not at all; nothing else writes a file in two steps."""

import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a new file beside an old one and then replaces it, so one is always complete.

    Args:
        path: where the file is to be; the folder must exist.
        content: all that is in the file.

    Raises:
        OSError: the file cannot be written; an older one is kept.

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

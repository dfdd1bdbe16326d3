"""The folder in which an evaluation leaves its results, shard by shard."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files.whole import write_whole
from .neurons import Neurons


@dataclass(frozen=True)
class ShardResult:
    """What was counted on the images of one shard."""

    shard: int
    """The number of the shard, from 0."""
    images: int
    """How many images were evaluated."""
    corrupt: list[str]
    """The images that were left out, and why."""
    right: list[int]
    """How many of the answers after each time step are right."""
    agreeing: list[int]
    """How many of the answers after each time step are the ReLU network's."""
    relu_right: int
    """How many of the ReLU network's answers are right."""
    spikes: dict[str, int]
    """How many spikes each layer sent, negative ones too, by its path."""
    neurons: dict[str, int]
    """How many neurons each layer has for one image, by its path."""
    seconds: float
    """Seconds that computing took."""
    waited: float
    """Seconds that it took until the images were read."""
    rank: int
    """The process that computed it."""
    computed_on: str
    """The name of the device, and how many threads there were."""


class Results:
    """A folder of results: ``settings.json``, ``neurons.safetensors``, ``shards/`` and
    ``result.json``.

    Args:
        folder: made if it is not there.
        settings: all that decides the results, as JSON.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     results = Results(Path(folder), {"timesteps": 8})
    ...     results.begin(resume=False)
    ...     results.done("digest of the neurons")
    {}
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self._shards = folder / "shards"
        self._settings = folder / "settings.json"
        self._neurons = folder / "neurons.safetensors"

    def begin(self, *, resume: bool) -> Neurons | None:
        """Opens the folder, or makes it; one of the processes does so, for all.

        Returns:
            The neurons that an earlier run found, if it is resumed and came so far; else None.

        Raises:
            ValueError: the folder has shards and resume is False, or shards of other settings.
        """
        self._shards.mkdir(parents=True, exist_ok=True)
        some = next(self._shards.glob("*.json"), None)
        if some is not None and not resume:
            raise ValueError(
                f"{self.folder} has shards of an earlier run; resume it, or choose another folder"
            )
        if resume and self._settings.is_file():
            self._check(json.loads(self._settings.read_text(encoding="utf-8")))
            if self._neurons.is_file():
                return Neurons.load(self._neurons)
        self._neurons.unlink(missing_ok=True)
        _write(self._settings, self.settings)
        return None

    def keep(self, neurons: Neurons) -> None:
        """Writes the neurons, which is to be done before any shard is added."""
        neurons.save(self._neurons)

    def done(self, neurons: str) -> dict[int, ShardResult]:
        """Reads the results of the shards that are done already.

        Args:
            neurons: the digest of the neurons.

        Returns:
            the results by shard.

        Raises:
            ValueError: a file is damaged, or of other settings or neurons.
        """
        fingerprint = self.fingerprint(neurons)
        found = {}
        for path in sorted(self._shards.glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                made_with = content.pop("fingerprint")
                result = ShardResult(**content)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(f"{path} must hold a shard's result: {error}") from error
            if made_with != fingerprint:
                raise ValueError(f"{path} must be of these settings and neurons, got others")
            found[result.shard] = result
        return found

    def add(self, result: ShardResult, neurons: str) -> None:
        """Writes the result of one shard, with the digest of the neurons that it is of."""
        content = {"fingerprint": self.fingerprint(neurons), **asdict(result)}
        _write(self._shards / f"{result.shard:06}.json", content)

    def finish(self, result: Mapping[str, Any]) -> Path:
        """Writes the result of all shards together; returns the file."""
        path = self.folder / "result.json"
        _write(path, result)
        return path

    def fingerprint(self, neurons: str) -> str:
        """SHA-256 of all that decides the results: the settings and the digest of the neurons."""
        text = json.dumps([self.settings, neurons], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _check(self, found: Mapping[str, Any]) -> None:
        if different := differences(found, json.loads(json.dumps(self.settings))):
            raise ValueError(f"to resume, settings must be those of {self.folder}: {different}")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Says in which entries settings differ from earlier ones; empty if in none.

    >>> differences({"preset": "snm", "timesteps": 4}, {"preset": "if", "timesteps": 4})
    "preset was 'snm', is 'if'"
    """
    return "; ".join(
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_whole(path, f"{text}\n".encode())

"""The processes that share an evaluation, and the exchanges between them."""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others, at most for the slowest one's shards."""


class PeerError(RuntimeError):
    """Another of the processes has ended, or does not answer."""


class Processes:
    """The processes that ``torchrun`` started, or this one alone.

    As a context manager it connects them, by gloo, and by NCCL on GPUs; one process needs no
    connection. All of them must make the same calls in the same order.

    Args:
        device: ``"cpu"`` or ``"cuda"``, then the GPU whose number is ``LOCAL_RANK``.
        patience: how long a process waits for the others before it gives up.

    Attributes:
        rank: number of this process, from 0.
        world: how many there are.
        device: where this one computes.
        sent: what this one took part in exchanging: how many times, and the bytes of its tensors
            and objects by operation.

    Raises:
        ValueError: there is no such GPU.

    >>> with Processes("cpu") as processes:
    ...     processes.rank, processes.world, processes.gather("one")
    (0, 1, ['one'])
    """

    def __init__(self, device: str, *, patience: timedelta = PATIENCE) -> None:
        self.patience = patience
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.sent = {"exchanges": 0, "reduced": 0, "broadcast": 0, "gathered": 0}
        self.device = torch.device(device)
        if device == "cuda":
            local, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
            if local >= found:
                raise ValueError(
                    f"device cuda needs a GPU for each process of a machine, got {found} "
                    f"for process {local + 1}"
                )
            self.device = torch.device("cuda", local)

    def __enter__(self) -> "Processes":
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            # The same batch is to give the same logits in every process.
            torch.backends.cudnn.deterministic = True
        if self.world > 1:
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=self.patience)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After an error the others may wait in an operation, and so would this one.
        if self.world > 1 and error is None:
            dist.destroy_process_group()

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world}"

    def largest(self, values: Tensor) -> None:
        """Makes a tensor the elementwise maximum of everyone's, in place."""
        self._reduce(values, dist.ReduceOp.MAX)

    def total(self, values: Tensor) -> None:
        """Makes a tensor of integers the sum of everyone's, in place."""
        self._reduce(values, dist.ReduceOp.SUM)

    def broadcast(self, values: Tensor, source: int) -> None:
        """Makes a tensor equal to that of another process, in place."""
        if self.world > 1:
            with self._with_peers():
                dist.broadcast(values, source)
            self._note("broadcast", values.nbytes)

    def share(self, value: T) -> T:
        """Hands the first process's value to all; the others' values are ignored."""
        if self.world == 1:
            return value
        held = [value]
        with self._with_peers():
            dist.broadcast_object_list(held)
        self._note("broadcast", len(pickle.dumps(held[0])))
        return held[0]

    def gather(self, value: T) -> list[T]:
        """Collects everyone's values, by rank."""
        if self.world == 1:
            return [value]
        found: list[T | None] = [None] * self.world
        with self._with_peers():
            dist.all_gather_object(found, value)
        self._note("gathered", len(pickle.dumps(value)))
        return found  # type: ignore[return-value]

    def _reduce(self, values: Tensor, operation: "dist.ReduceOp.RedOpType") -> None:
        if self.world > 1:
            with self._with_peers():
                dist.all_reduce(values, operation)
            self._note("reduced", values.nbytes)

    def _note(self, operation: str, size: int) -> None:
        self.sent["exchanges"] += 1
        self.sent[operation] += size

    @contextmanager
    def _with_peers(self) -> Iterator[None]:
        """Says of a failed exchange that the cause is elsewhere."""
        try:
            yield
        except RuntimeError as error:
            raise PeerError(
                "another process has ended, or did not answer in "
                f"{self.patience.total_seconds():.0f} s; its own message says why ({error})"
            ) from error

"""Data sets in files, small models and forked processes, for the tests of evaluation."""

import multiprocessing
import os
import struct
import traceback
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from snm.data.batches import Shards
from snm.data.datasets import open_dataset
from snm.data.preprocess import Preprocessing
from snm.evaluate.conversion import Conversion
from snm.evaluate.processes import Processes
from snm.evaluate.run import Evaluation, evaluate
from snm.models import Loaded, Request, load_model

PATIENCE = 900
"""Seconds to wait for other processes, which a loaded machine takes minutes to start; less than the
half hour for which they wait for each other."""
GREY = Preprocessing((0.2860,), (0.3530,))
SOURCE = "support.evaluation:small_network"


def small_network() -> nn.Module:
    """A network of two layers of neurons for grey images of 28×28, the same at every call."""
    torch.manual_seed(7)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 10)),
    ).eval()


def packaged() -> Any:
    """The arrays that come with the package."""
    content = (files("snm.demo") / "assets" / "images.npz").read_bytes()
    return np.load(BytesIO(content), allow_pickle=False)


def idx(array: np.ndarray) -> bytes:
    """The content of an idx file with an array of unsigned bytes."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_fashion_mnist(folder: Path, test: int, train: int) -> Path:
    """Writes the first packaged images as the four files of Fashion-MNIST, with train labels 0."""
    arrays = packaged()
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in {
        "t10k-images-idx3-ubyte": arrays["test_images"][:test],
        "t10k-labels-idx1-ubyte": arrays["test_labels"][:test],
        "train-images-idx3-ubyte": arrays["calibration_images"][:train],
        "train-labels-idx1-ubyte": np.zeros(train),
    }.items():
        (folder / name).write_bytes(idx(array))
    return folder


def small_model() -> Loaded:
    return load_model(Request(SOURCE, preprocessing=GREY))


def small_evaluation(
    folder: Path,
    *,
    timesteps: int = 4,
    batch_size: int = 8,
    loaded: Loaded | None = None,
    **how: Any,
) -> Evaluation:
    """An evaluation of the small network on the Fashion-MNIST in a folder."""
    loaded = loaded or small_model()
    data, calibration = (
        open_dataset(f"fashion-mnist:{folder}", split) for split in ("test", "train")
    )
    return Evaluation(
        loaded,
        Conversion(**how),
        Shards(data, loaded.preprocess, range(len(data)), batch_size),
        Shards(calibration, loaded.preprocess, range(len(calibration)), batch_size),
        timesteps,
        {"model": SOURCE},
    )


def run_small(folder: Path, out: Path, world: int = 1, **options: Any) -> list[dict[str, Any]]:
    """The results that each of a number of processes gets for the small network."""
    resume = options.pop("resume", False)

    def work(processes: Processes) -> dict[str, Any]:
        return evaluate(small_evaluation(folder, **options), out, processes, resume=resume)

    return in_processes(world, out.parent / f"{out.name}-meeting", work)


def in_processes(world: int, meeting: Path, work: Callable[[Processes], Any]) -> list[Any]:
    """What a function returns in each of a number of processes that are connected by gloo.

    Args:
        meeting: the path of a file that does not exist yet, by which they find each other.
    """
    context = multiprocessing.get_context("fork")
    running = []
    for rank in range(world):
        end, other = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(rank, world, meeting, work, other))
        process.start()
        other.close()
        running.append((process, end))
    results, failures = [], []
    for process, end in running:
        ok, value = end.recv() if end.poll(PATIENCE) else (False, "said nothing")
        (results if ok else failures).append(value)
        process.join(10)
        process.kill()
    assert not failures, "\n".join(failures)
    return results


def _child(rank: int, world: int, meeting: Path, work: Any, end: Any) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    where = f"file://{meeting}"
    dist.init_process_group = partial(
        dist.init_process_group, init_method=where, rank=rank, world_size=world
    )
    try:
        with Processes("cpu") as processes:
            end.send((True, work(processes)))
    except BaseException:
        end.send((False, f"rank {rank}: {traceback.format_exc()}"))
        raise

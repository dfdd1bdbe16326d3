"""Evaluates a spiking network on a data set, with as many processes as there are."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import snm_kernels

from ..conversion.inputs import Progress
from ..data.batches import Batch, Shards, shards_of
from ..models import Loaded
from ..network.memory import steps_anywhere
from ..network.relu import relu_pass
from ..network.spiking import SpikingNetwork
from ..network.tally import Tally
from .conversion import Conversion, spiking_network
from .processes import Processes
from .results import Results, ShardResult, differences

ReLUNetwork = Callable[[Tensor], Tensor]
"""Answers images by the ReLU network: logits ``[B, classes]``."""
OnShard = Callable[[ShardResult, int], None]
"""Is told of each shard that this process has computed, and of how many it is to compute."""


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated: a model, how it is converted, and the images.

    Args:
        loaded: the model.
        conversion: how it becomes a spiking network.
        data: the images, each shard a batch.
        calibration: images to calibrate and tune on; None for a model that needs none.
        timesteps: T.
        names: what else decides the results, or names them, for ``settings.json``.
    """

    loaded: Loaded
    conversion: Conversion
    data: Shards
    calibration: Shards | None
    timesteps: int
    names: dict[str, Any]

    def settings(self, processes: Processes) -> dict[str, Any]:
        """All that decides the results, but for the neurons, as JSON."""
        return {
            "version": snm_kernels.__version__,
            "weights": self.loaded.digest,
            **asdict(self.conversion),
            "timesteps": self.timesteps,
            "data_digest": self.data.digest(),
            "images": self.data.images,
            "batch_size": len(self.data.indices[0]),
            "calibration_digest": None if self.calibration is None else self.calibration.digest(),
            "calibration_images": None if self.calibration is None else self.calibration.images,
            "device": processes.device.type,
            **self.names,
        }


@torch.no_grad()
def evaluate(
    evaluation: Evaluation,
    folder: Path,
    processes: Processes,
    *,
    resume: bool = False,
    report: OnShard | None = None,
    tuning: Progress | None = None,
) -> dict[str, Any]:
    """Evaluates the shards that are not yet done, and sums up the results of all.

    Args:
        evaluation: what to evaluate, the same in all processes.
        folder: for the results; see :class:`snm.evaluate.results.Results`. All processes see it.
        processes: who takes part.
        resume: go on from the shards that are there.
        report: told of each shard.
        tuning: as for :func:`snm.evaluate.conversion.spiking_network`.

    Returns:
        The result, as in ``result.json``; the same in all processes.

    Raises:
        ValueError: the folder has other results, or a process other settings; labels do not fit
            the model; or as :func:`snm.convert`.
        CorruptImage: an image is corrupt, and is not to be left out.
    """
    start = time.perf_counter()
    results = Results(folder, evaluation.settings(processes))
    everyone = processes.gather(results.settings)
    for rank, settings in enumerate(everyone):
        if different := differences(everyone[0], settings):
            raise ValueError(f"settings of rank {rank} must be those of rank 0: {different}")
    earlier = results.begin(resume=resume) if processes.rank == 0 else None
    net, neurons = spiking_network(
        evaluation.loaded,
        evaluation.conversion,
        evaluation.calibration,
        processes,
        processes.share(earlier),
        tuning=tuning,
    )
    digest = neurons.digest()
    if processes.rank == 0 and earlier is None:
        results.keep(neurons)
    done = processes.share(results.done(digest) if processes.rank == 0 else {})
    prepared = time.perf_counter() - start
    net.chunk_steps = _chunk_steps(net, evaluation)
    left = [shard for shard in range(len(evaluation.data)) if shard not in done]
    own = shards_of(left, processes.rank, processes.world)
    mine: dict[int, ShardResult] = {}
    worker = _Worker(net, _relu_network(evaluation.loaded, net), evaluation.timesteps, processes)
    for found in worker.results(evaluation.data, own):
        results.add(found, digest)
        mine[found.shard] = found
        if report is not None:
            report(found, len(own))
    calibration = evaluation.calibration
    left_out = set() if calibration is None else calibration.left_out
    for theirs, more in processes.gather((mine, left_out)):
        done |= theirs
        left_out = left_out | more
    result = {
        "settings": results.settings,
        "neurons": digest,
        "silent": sum(int(layer.silent.sum()) for layer in net.layers.values()),
        **_summed(done, evaluation.timesteps),
        "corrupt_calibration": sorted(left_out),
        "tuning": neurons.tuning,
        "processes": processes.world,
        "communication": processes.sent,
        "preparation_seconds": prepared,
        "seconds": time.perf_counter() - start,
    }
    if processes.rank == 0:
        results.finish(result)
    return result


class _Worker:
    """Computes the shards of this process."""

    def __init__(
        self, net: SpikingNetwork, relu: ReLUNetwork, timesteps: int, processes: Processes
    ) -> None:
        self.net = net
        self.relu = relu
        self.timesteps = timesteps
        self.device = processes.device
        self.rank = processes.rank
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        self.computed_on = f"{name}, {torch.get_num_threads()} threads"

    def results(self, data: Shards, shards: Sequence[int]) -> Iterator[ShardResult]:
        """The result of each of some shards, computed when it is asked for."""
        batches = iter(data.read(shards))
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            yield self._of(batch, time.perf_counter() - start)

    def _of(self, batch: Batch, waited: float) -> ShardResult:
        start = time.perf_counter()
        count = len(batch.labels)
        right = agreeing = torch.zeros(self.timesteps, dtype=torch.int64)
        relu_right = 0
        tally = Tally(poolings=False)
        if count:
            images, labels = batch.images.to(self.device), batch.labels.to(self.device)
            expected = self.relu(images).argmax(1)
            simulation = self.net.simulation(
                images.to(self.net.dtype), timesteps=self.timesteps, observers=[tally]
            )
            logits = torch.stack(list(simulation.answers()))
            _check_labels(batch.labels, logits)
            answers = logits.argmax(2)
            right = (answers == labels).sum(1)
            agreeing = (answers == expected).sum(1)
            relu_right = int((expected == labels).sum())
        return ShardResult(
            shard=batch.shard,
            images=count,
            corrupt=list(batch.corrupt),
            right=right.tolist(),
            agreeing=agreeing.tolist(),
            relu_right=relu_right,
            spikes={path: int(sent.sum(dtype=torch.int64)) for path, sent in tally.sent().items()},
            neurons={path: sent[0].numel() for path, sent in tally.sent().items()},
            seconds=time.perf_counter() - start,
            waited=waited,
            rank=self.rank,
            computed_on=self.computed_on,
        )


def _chunk_steps(net: SpikingNetwork, evaluation: Evaluation) -> int:
    """Time steps at once, by the batch size alone: convolutions may round differently on another
    number of images at once."""
    size = len(evaluation.data.indices[0])
    elements = max(1, net.program.elements_per_step) * size
    most = steps_anywhere(elements * net.dtype.itemsize, net.device)
    return math.ceil(evaluation.timesteps / math.ceil(evaluation.timesteps / most))


def _relu_network(loaded: Loaded, net: SpikingNetwork) -> ReLUNetwork:
    """The ReLU network: the model itself, or what a loaded spiking network was made of."""
    if not isinstance(loaded.model, SpikingNetwork):
        model: nn.Module = loaded.model
        return model
    return lambda images: relu_pass(net, images.to(net.dtype))[1]


def _check_labels(labels: Tensor, logits: Tensor) -> None:
    if logits.dim() != 3 or int(labels.max()) >= logits.shape[2]:
        raise ValueError(
            f"model must have logits for classes up to {int(labels.max())}, got "
            f"{list(logits.shape[1:])}"
        )


def _summed(done: dict[int, ShardResult], timesteps: int) -> dict[str, Any]:
    """Sums up the results of all shards."""
    shards = [done[shard] for shard in sorted(done)]
    images = sum(shard.images for shard in shards)
    if images == 0:
        raise ValueError("data must hold at least one image that can be decoded")
    right = [sum(shard.right[t] for shard in shards) for t in range(timesteps)]
    agreeing = [sum(shard.agreeing[t] for shard in shards) for t in range(timesteps)]
    relu_right = sum(shard.relu_right for shard in shards)
    full = next(shard for shard in shards if shard.images)
    return {
        "images": images,
        "corrupt": [name for shard in shards for name in shard.corrupt],
        "right": right,
        "agreeing": agreeing,
        "relu_right": relu_right,
        "accuracy": [count / images for count in right],
        "agreement": [count / images for count in agreeing],
        "relu_accuracy": relu_right / images,
        "layers": {
            path: {
                "neurons": full.neurons[path],
                "spikes": sum(shard.spikes.get(path, 0) for shard in shards),
            }
            for path in full.neurons
        },
        "shards": [
            {
                "shard": shard.shard,
                "images": shard.images,
                "rank": shard.rank,
                "seconds": shard.seconds,
                "waited": shard.waited,
                "computed_on": shard.computed_on,
            }
            for shard in shards
        ],
    }

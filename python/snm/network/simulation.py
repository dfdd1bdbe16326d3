"""Simulates one batch of images through all time steps, chunk by chunk."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .encode import Source
from .inputs import check_readout_after
from .run import Counts, Run


class Simulation:
    """A simulation of images, as :meth:`snm.SpikingNetwork.simulation` makes it.

    Nothing is computed until :meth:`chunks`, :meth:`answers` or :meth:`answer` is called; only one
    of them can be, and only once.

    Args:
        source: gives the frames of the time steps.
        start: begins a run of images ``[B, ...]``.
        timesteps: T, >= 1; None for as many as the source has.
        steps_at_once: how many time steps a chunk has at most.

    >>> from torch import nn
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
    >>> simulation = net.simulation(images, timesteps=8)
    >>> torch.equal(simulation.answer(), net(images, timesteps=8)), simulation.run.steps
    (True, 8)
    """

    def __init__(
        self,
        source: Source,
        start: Callable[[Tensor], Run],
        timesteps: int | None,
        steps_at_once: int,
    ) -> None:
        self.source = source
        """Gives the images, ``source.images``, and the frames of the time steps."""
        self.timesteps = timesteps
        self._start = start
        self._steps_at_once = steps_at_once
        self._run: Run | None = None

    @property
    def run(self) -> Run:
        """The state of the simulation: steps so far, states of the neurons, counts of spikes.

        Raises:
            RuntimeError: the simulation has not begun.
        """
        if self._run is None:
            raise RuntimeError("Simulation: has not begun; call chunks, answers or answer")
        return self._run

    def answer(self, readout_after: int = 0) -> Tensor:
        """What a call of the network returns.

        Args:
            readout_after: k, from 0 to T - 1: only steps after the first k are read out.

        Raises:
            ValueError, TypeError: as for a call.

        >>> from torch import nn
        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
        >>> answer = net.simulation(images, timesteps=8).answer(readout_after=2)
        >>> torch.equal(answer, net(images, timesteps=8, readout_after=2))
        True
        """
        check_readout_after(readout_after, self.timesteps)
        with _without_gradients():
            return self._answer(readout_after)

    def answers(self) -> Iterator[Tensor]:
        """Simulates to the end and yields the answer after each step.

        Raises:
            ValueError, TypeError: as for a call.

        >>> from torch import nn
        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
        >>> for steps, answer in enumerate(net.simulation(images, timesteps=3).answers(), 1):
        ...     print(steps, torch.allclose(answer, net(images, timesteps=steps), atol=1e-5))
        1 True
        2 True
        3 True
        """
        run = self._begin()
        counts: Counts = {}
        steps = 0
        for spikes in self._advance(run, each_step=True):
            for t in range(run.steps - steps):
                for name, sent in spikes.items():
                    counts[name] = counts.get(name, 0) + sent[t].to(torch.int32)
                steps += 1
                with _without_gradients():
                    answer = run.answer(counts, steps)
                yield answer

    def chunks(self) -> Iterator[Run]:
        """Simulates to the end and yields the run after each chunk of time steps.

        Raises:
            ValueError, TypeError: as for a call.

        >>> from torch import nn
        >>> from snm import convert
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> net, images = convert(model, torch.rand(32, 4), chunk_steps=3), torch.rand(2, 4)
        >>> [run.steps for run in net.simulation(images, timesteps=8).chunks()]
        [3, 6, 8]
        """
        run = self._begin()
        for _ in self._advance(run):
            yield run

    def _begin(self) -> Run:
        """A run before its first step; refuses to begin a second time."""
        if self._run is not None:
            raise RuntimeError("Simulation: runs once; make another with net.simulation")
        with _without_gradients():
            self._run = run = self._start(self.source.images)
        return run

    def _answer(self, readout_after: int) -> Tensor:
        """Simulates to the end and reads out the steps after the first ``readout_after``."""
        run = self._begin()
        earlier: Counts = {}
        answered: Tensor | float = 0.0
        for _ in self._advance(run, stop=readout_after):
            if run.steps == readout_after and run.program.tail_pools:
                answered = readout_after * run.answer()
            elif run.steps == readout_after:
                earlier = run.counts()
                run.image_sum = 0.0
        if run.steps <= readout_after:
            raise ValueError(
                f"SpikingNetwork: readout_after must be less than the {run.steps} frames, "
                f"got {readout_after}"
            )
        steps = run.steps - readout_after
        if isinstance(answered, Tensor):
            return (run.steps * run.answer() - answered) / steps
        counts = {name: m - earlier[name] if earlier else m for name, m in run.counts().items()}
        return run.answer(counts, steps)

    def _advance(
        self, run: Run, *, stop: int = 0, each_step: bool = False
    ) -> Iterator[dict[str, Tensor]]:
        """Advances the run to its end and yields after each chunk; one chunk ends at ``stop``.

        With ``each_step`` it yields the spikes that are read out, step by step; else nothing.
        """
        most, timesteps = self._steps_at_once, self.timesteps
        if each_step and run.program.averages_images:
            most = 1
        while timesteps is None or run.steps < timesteps:
            ends = [run.steps + most, *(end for end in (stop, timesteps) if end)]
            steps, frames = self.source.take(min(e for e in ends if e > run.steps) - run.steps)
            if steps == 0 and timesteps is None:
                return
            if steps == 0:
                raise ValueError(
                    f"SpikingNetwork: frames must be at least {timesteps} for as many timesteps, "
                    f"got {run.steps}"
                )
            with _without_gradients():
                spikes = run.advance(steps, frames, count=each_step)
            yield spikes


def _without_gradients() -> AbstractContextManager[Any]:
    """Switches gradients off where they are on: what is traced holds each switch as a node."""
    return torch.no_grad() if torch.is_grad_enabled() else nullcontext()

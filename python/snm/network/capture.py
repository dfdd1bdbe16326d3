"""Captures a whole simulation in one CUDA graph."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .run import Run

_WARM_UPS = 2
"""How many runs come before the capture, so that nothing is left to be chosen, compiled or
allocated at first use."""


def simulate(start: Callable[[Tensor], Run], images: Tensor, timesteps: int, chunk: int) -> Tensor:
    """What a call of a network with encoder="direct" returns, computed without its checks.

    Nothing in it makes the host wait for the device.

    Args:
        start: begins a run of the network.
        images: ``[B, ...]``, as a call takes them.
        timesteps: T, >= 1.
        chunk: how many time steps to simulate at once, >= 1.

    >>> from snm import convert
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
    >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
    >>> answer = simulate(lambda images: Run(net.program, net.model, images), images, 8, chunk=8)
    >>> torch.equal(answer, net(images, timesteps=8))
    True
    """
    with torch.no_grad():
        run = start(images)
        while run.steps < timesteps:
            run.advance(min(chunk, timesteps - run.steps), None)
        return run.answer()


class CapturedNetwork:
    """A simulation recorded in a CUDA graph; made by :meth:`snm.SpikingNetwork.capture`.

    A call launches all layers and time steps at once. It does not check the images for NaN and
    infinity, as it would have to wait for the device. Calls from several streams share the graph's
    memory, so the caller has to order them.

    The graph reads the parameters and buffers that the network had when it was captured, and keeps
    them alive. It sees what is written into them, but not ``net.to(...)``, another rule or another
    ``chunk_steps``, after which the network has to be captured again.

    Args:
        start: begins a run of a network with encoder="direct", on a CUDA device.
        kept: the network's parameters and buffers.
        example: images ``[B, ...]`` like those that all calls will have.
        timesteps: T, >= 1.
        chunk: how many time steps to simulate at once, >= 1.

    >>> from snm import convert
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
    >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
    >>> if torch.cuda.is_available():
    ...     captured = net.cuda().capture(images.cuda(), timesteps=8)
    ...     assert captured(images.cuda()).shape == (2, 8)
    """

    def __init__(
        self,
        start: Callable[[Tensor], Run],
        kept: Iterable[Tensor],
        example: Tensor,
        timesteps: int,
        chunk: int,
    ) -> None:
        self.timesteps = timesteps
        # A move of the network would free what the graph reads.
        self._kept = [tensor.detach() for tensor in kept]
        self._graph = torch.cuda.CUDAGraph()
        # A buffer made in inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(example.device):
            self._images = torch.empty_like(example).copy_(example)
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    simulate(start, self._images, timesteps, chunk)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(self._graph):
                self._logits = simulate(start, self._images, timesteps, chunk)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """The answer after T time steps.

        Args:
            images: of the example's shape, dtype and device; simulated in its memory format.

        Returns:
            What a call of the network returns, in a new tensor, which later calls do not touch.

        Raises:
            ValueError, TypeError: the images are not like the example.
        """
        self._check(images)
        with torch.cuda.device(images.device):
            self._images.copy_(images)
            self._graph.replay()
            return self._logits.clone()

    def _check(self, images: object) -> None:
        """Refuses images that are not like the example."""
        expected = self._images
        if not isinstance(images, Tensor):
            raise TypeError(
                f"CapturedNetwork: images must be a tensor, got {type(images).__name__}"
            )
        if images.dtype != expected.dtype:
            raise TypeError(f"CapturedNetwork: images must be {expected.dtype}, got {images.dtype}")
        if images.shape != expected.shape:
            raise ValueError(
                f"CapturedNetwork: images must be {list(expected.shape)}, got {list(images.shape)}"
            )
        if images.device != expected.device:
            raise ValueError(
                f"CapturedNetwork: images must be on {expected.device}, got {images.device}"
            )

"""What neurons did at every time step of a simulation."""

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from snm_kernels import SNMRule, SNMState, snm

from ..nn import SNMNeuron
from .packed import pack_spikes, unpack_spikes
from .program import Fire
from .run import Run

Quantity = Literal["spikes", "membrane", "memory"]
Indices = Tensor | Sequence[int]

QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)


class LayerRecording:
    """What neurons of one layer did; :meth:`snm.SpikingNetwork.record` makes it.

    Args:
        path: of the layer in the ReLU network.
        what: which of "spikes", "membrane" and "memory" to keep.
        neurons: flat indices into the neurons of one image, int64 ``[n]``; None for all.

    >>> from snm import convert
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
    >>> net = convert(model, torch.rand(32, 4))
    >>> with net.record("1", neurons=[0, 3]) as recording:
    ...     _ = net(torch.rand(2, 4), timesteps=5)
    >>> layer = recording["1"]
    >>> layer.timesteps, layer.spikes.shape, layer.shape
    (5, torch.Size([5, 2, 2]), torch.Size([8]))
    >>> torch.equal(layer.memory[-1], layer.spikes.sum(0, dtype=torch.int32))
    True
    """

    def __init__(self, path: str, what: Sequence[Quantity], neurons: Tensor | None) -> None:
        self.path = path
        self.what = tuple(what)
        self.neurons = neurons
        self._clear()

    def _clear(self) -> None:
        self.timesteps = 0
        """How many have been recorded."""
        self._batch = 0
        self._shape = torch.Size()
        self._rule = SNMRule()
        self._threshold = torch.empty(0)
        self._before: Tensor | None = None
        # A tensor for each chunk of time steps, and how many steps it has.
        self._spikes: list[tuple[int, Tensor]] = []
        self._membrane: list[Tensor] = []

    @property
    def spikes(self) -> Tensor:
        """What was sent, int8 ``[T, B, *shape]``, or ``[T, B, n]`` of chosen neurons."""
        self._check("spikes")
        return self._unpacked()

    @property
    def membrane(self) -> Tensor:
        """The membrane after each step in units of the drive, float32, of the spikes' shape."""
        self._check("membrane")
        if len(self._membrane) > 1:
            self._membrane = [torch.cat(self._membrane)]
        return self._membrane[0]

    @property
    def memory(self) -> Tensor:
        """The memory after each step, the net number of spikes sent so far, int32, of the spikes'
        shape."""
        self._check("memory")
        sent = self._unpacked().cumsum(0, dtype=torch.int32)
        return sent if self._before is None else sent.add_(self._before)

    @property
    def images(self) -> int:
        """B, how many images were simulated."""
        self._check()
        return self._batch

    @property
    def shape(self) -> torch.Size:
        """Of all the neurons of one image, recorded or not."""
        self._check()
        return self._shape

    @property
    def threshold(self) -> Tensor:
        """θ of the recorded neurons in units of the drive, float32 ``[*shape]`` or ``[n]``."""
        self._check()
        return self._threshold

    @property
    def rule(self) -> SNMRule:
        """Which neurons they are."""
        self._check()
        return self._rule

    @property
    def nbytes(self) -> int:
        """How many bytes the recording takes."""
        return sum(kept.nbytes for kept in [*(sent for _, sent in self._spikes), *self._membrane])

    def __repr__(self) -> str:
        many = "all" if self.neurons is None else len(self.neurons)
        return (
            f"LayerRecording({self.path!r}, {', '.join(self.what)} of {many} neurons at "
            f"{self.timesteps} time steps)"
        )

    def _add(
        self, neuron: SNMNeuron, drive: Tensor, residual: Tensor | None, before: SNMState | None
    ) -> None:
        """Runs the recorded neurons over a chunk of time steps, from the state before it."""
        steps, shape = drive.shape[0], drive.shape[2:]
        threshold, bias = neuron.threshold, neuron.bias
        self._threshold = threshold.expand(shape)
        if self.neurons is not None:
            chosen = _Chosen(self.path, self.neurons, shape, drive.device)
            threshold = self._threshold = chosen.of(self._threshold)
            bias = None if bias is None else chosen.of(bias.expand(shape))
            drive = chosen.over_time(drive)
            residual = None if residual is None else chosen.over_time(residual)
            if before is not None:
                before = SNMState(chosen.of(before.v), chosen.of(before.m))
        if self.timesteps == 0:
            self._batch, self._shape, self._rule = drive.shape[1], shape, neuron.rule
            self._before = None if before is None else before.m
        length = 1 if "membrane" in self.what else steps
        sent, membranes = [], []
        for start in range(0, steps, length):
            now = slice(start, start + length)
            spikes, before = snm(
                drive[now],
                threshold,
                rule=neuron.rule,
                state=before,
                bias=bias,
                residual=None if residual is None else residual[now],
                emit="spike",
                backend=neuron.backend,
            )
            assert spikes is not None
            sent.append(spikes)
            membranes.append(before.v)
        if "membrane" in self.what:
            self._membrane.append(torch.stack(membranes))
        if self.what != ("membrane",):
            chunk = sent[0] if len(sent) == 1 else torch.cat(sent)
            ternary = neuron.rule.max_spikes == 1
            self._spikes.append((steps, pack_spikes(chunk) if ternary else chunk))
        self.timesteps += steps

    def _check(self, what: Quantity | None = None) -> None:
        if what is not None and what not in self.what:
            raise AttributeError(
                f"LayerRecording: {what} of {self.path} was not recorded, only "
                f"{', '.join(self.what)}"
            )
        if self.timesteps == 0:
            raise RuntimeError(
                f"LayerRecording: nothing of {self.path} was recorded; call the network within "
                "the with statement"
            )

    def _unpacked(self) -> Tensor:
        size = self._shape if self.neurons is None else self.neurons.shape
        return torch.cat(
            [
                sent
                if sent.dtype == torch.int8
                else unpack_spikes(sent, (steps, self._batch, *size))
                for steps, sent in self._spikes
            ]
        )


class Recording(Mapping[str, LayerRecording]):
    """What layers of neurons did at every time step, by their paths in order of execution.

    It is of one simulation: a call of the network starts afresh and takes the place of what was
    recorded before; :meth:`snm.SpikingNetwork.step` goes on as long as its simulation does.

    Args:
        layers: what to record.

    >>> from snm import convert
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
    >>> net = convert(model, torch.rand(32, 4))
    >>> with net.record() as recording:
    ...     _ = net(torch.rand(2, 4), timesteps=5)
    >>> list(recording), recording.timesteps
    (['1'], 5)
    """

    def __init__(self, layers: Mapping[str, LayerRecording]) -> None:
        self._layers = dict(layers)
        self._run: weakref.ref[Run] | None = None

    @property
    def timesteps(self) -> int:
        """T, how many time steps were recorded; 0 before any call."""
        return min(layer.timesteps for layer in self._layers.values())

    def __getitem__(self, path: str) -> LayerRecording:
        if path not in self._layers:
            raise KeyError(f"{path!r} was not recorded, only {', '.join(self._layers)}")
        return self._layers[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"Recording({list(self._layers.values())})"

    @torch.compiler.disable(reason="SpikingNetwork: what is recorded cannot be one graph")
    def _see(
        self,
        run: Run,
        fire: Fire,
        drive: Tensor,
        residual: Tensor | None,
        before: SNMState | None,
    ) -> None:
        """Looks at what a layer of neurons is about to run over: a run's observer."""
        if self._run is None or self._run() is not run:
            for layer in self._layers.values():
                layer._clear()
            self._run = weakref.ref(run)
        if fire.path in self._layers:
            self._layers[fire.path]._add(run.neuron(fire), drive, residual, before)

    def _end(self) -> None:
        """Lets go of the run, so that what is left can be saved."""
        self._run = None


class _Chosen:
    """Takes chosen neurons out of tensors that have an entry for each.

    Args:
        path: of the layer.
        neurons: flat indices, int64 ``[n]``.
        shape: of the neurons of one image.
        device: of the tensors.
    """

    def __init__(self, path: str, neurons: Tensor, shape: torch.Size, device: torch.device) -> None:
        count = shape.numel()
        last = int(neurons.max())
        if last >= count:
            raise ValueError(
                f"SpikingNetwork: neurons of {path} must be 0 to {count - 1}, got {last}"
            )
        # The last dimension makes even a layer of one neuron without dimensions have one.
        at: tuple[Any, ...] = torch.unravel_index(neurons.to(device), (*shape, 1))
        self._at = (..., *at)

    def of(self, value: Tensor) -> Tensor:
        """``[..., n]`` of ``[..., *shape]``."""
        return value.unsqueeze(-1)[self._at]

    def over_time(self, value: Tensor) -> Tensor:
        """``[T, B, n]`` of ``[T, B, *shape]``; what is constant in time stays one step."""
        if value.stride(0) == 0:
            return self.of(value[:1]).expand(value.shape[0], -1, -1)
        return self.of(value)


def recording_of(
    layers: Iterable[str],
    paths: str | Iterable[str] | None,
    what: Quantity | Iterable[Quantity],
    neurons: Indices | Mapping[str, Indices] | None,
) -> Recording:
    """An empty recording, as :meth:`snm.SpikingNetwork.record` is asked for it.

    Args:
        layers: paths of all the network's layers of neurons.
    """
    known = list(layers)
    asked = known if paths is None else [paths] if isinstance(paths, str) else list(paths)
    _check_paths("paths", asked, known)
    if not asked:
        raise ValueError("SpikingNetwork: paths must hold at least one, got none")
    kept = {what} if isinstance(what, str) else set(what)
    if not kept or not kept <= set(QUANTITIES):
        raise ValueError(
            f"SpikingNetwork: what must be some of {', '.join(map(repr, QUANTITIES))}, got {what!r}"
        )
    if isinstance(neurons, Mapping):
        _check_paths("neurons", neurons, asked)
        chosen = {path: neurons.get(path) for path in asked}
    else:
        chosen = dict.fromkeys(asked, neurons)
    quantities = [quantity for quantity in QUANTITIES if quantity in kept]
    return Recording(
        {
            path: LayerRecording(path, quantities, _checked(chosen[path]))
            for path in known
            if path in chosen
        }
    )


def _check_paths(argument: str, paths: Iterable[str], known: Sequence[str]) -> None:
    for path in paths:
        if path not in known:
            raise ValueError(
                f"SpikingNetwork: {argument} must be of layers of neurons, got {path!r}; there are "
                f"{', '.join(known)}"
            )


def _checked(neurons: Indices | None) -> Tensor | None:
    """Indices as int64 ``[n]``."""
    if neurons is None:
        return None
    found = torch.as_tensor(neurons).detach()
    if found.dim() != 1 or len(found) == 0 or bool((found < 0).any()):
        raise ValueError(
            "SpikingNetwork: neurons must be one list of at least one index >= 0 into an image's "
            f"neurons, got {neurons}"
        )
    if found.dtype == torch.bool or found.is_floating_point():
        raise TypeError(f"SpikingNetwork: neurons must be integer indices, got {found.dtype}")
    return found.to(torch.int64, copy=True)

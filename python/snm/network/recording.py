"""Records what neurons do at every time step of a simulation."""

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from snm_kernels import SNMRule, SNMState, snm

from .observer import Ask, Launch, Observer
from .packed import pack_spikes, unpack_spikes
from .program import Fire

Quantity = Literal["spikes", "membrane", "memory"]
"""A quantity that can be recorded."""
Indices = Tensor | Sequence[int]
"""Flat indices into the neurons of one image."""

QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
"""All quantities that can be recorded."""


class LayerRecording:
    """What the neurons of one layer did, as :meth:`snm.SpikingNetwork.record` recorded it.

    Args:
        path: the layer's path in the ReLU network.
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
        """Forgets all that was recorded."""
        self.timesteps = 0
        """How many time steps have been recorded."""
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
        """The spikes that were sent, int8 ``[T, B, *shape]``, or ``[T, B, n]`` of n chosen
        neurons."""
        self._check("spikes")
        return self._unpacked()

    @property
    def membrane(self) -> Tensor:
        """The membrane after each step, in units of the drive, in the spikes' shape; float32, and
        int32 of a network of integers."""
        self._check("membrane")
        if len(self._membrane) > 1:
            self._membrane = [torch.cat(self._membrane)]
        return self._membrane[0]

    @property
    def memory(self) -> Tensor:
        """The memory after each step, which is the net number of spikes sent so far, int32, in the
        spikes' shape."""
        self._check("memory")
        sent = self._unpacked().cumsum(0, dtype=torch.int32)
        return sent if self._before is None else sent.add_(self._before)

    @property
    def images(self) -> int:
        """The number B of images that were simulated."""
        self._check()
        return self._batch

    @property
    def shape(self) -> torch.Size:
        """The shape of all neurons of one image, recorded or not."""
        self._check()
        return self._shape

    @property
    def threshold(self) -> Tensor:
        """The threshold θ of the recorded neurons in units of the drive, ``[*shape]`` or ``[n]``;
        float32, and int32 of a network of integers, whose silent neurons have 2**31 - 1."""
        self._check()
        return self._threshold

    @property
    def rule(self) -> SNMRule:
        """The rule that the neurons follow."""
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

    def _add(self, launch: Launch) -> None:
        """Keeps what the layer has done over a chunk of time steps."""
        chosen = None
        shape = launch.after.m.shape[1:]
        if self.neurons is not None:
            chosen = _Chosen(self.path, self.neurons, shape, launch.after.m.device)
        threshold = launch.neuron.threshold.expand(shape)
        before = launch.before
        if chosen is not None and before is not None:
            before = SNMState(chosen.of(before.v), chosen.of(before.m))
        if self.timesteps == 0:
            self._batch, self._shape = len(launch.after.m), shape
            self._rule = launch.neuron.rule
            self._before = None if before is None else before.m
        self._threshold = threshold if chosen is None else chosen.of(threshold)
        if "membrane" in self.what:
            sent = self._run_again(launch, before, chosen)
        else:
            assert launch.spikes is not None
            sent = launch.spikes if chosen is None else chosen.over_time(launch.spikes)
        if self.what != ("membrane",):
            ternary = launch.neuron.rule.max_spikes == 1
            self._spikes.append((len(sent), pack_spikes(sent) if ternary else sent))
        self.timesteps += len(sent)

    def _run_again(
        self, launch: Launch, state: SNMState | None, chosen: "_Chosen | None"
    ) -> Tensor:
        """Runs the recorded neurons step by step to keep their membranes; returns the spikes."""
        neuron, drive, residual = launch.neuron, launch.drive, launch.residual
        assert drive is not None
        bias = neuron.bias
        if chosen is not None:
            bias = None if bias is None else chosen.of(bias.expand(self._shape))
            drive = chosen.over_time(drive)
            residual = None if residual is None else chosen.over_time(residual)
        sent, membranes = [], []
        for t in range(len(drive)):
            spikes, state = snm(
                drive[t : t + 1],
                neuron.threshold if chosen is None else self._threshold,
                rule=neuron.rule,
                state=state,
                bias=bias,
                residual=None if residual is None else residual[t : t + 1],
                emit="spike",
                backend=neuron.backend,
            )
            assert spikes is not None
            sent.append(spikes)
            membranes.append(state.v)
        self._membrane.append(torch.stack(membranes))
        return torch.cat(sent)

    def _check(self, what: Quantity | None = None) -> None:
        """Refuses to read a quantity that was not recorded, or anything before the first step."""
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
        """The spikes of all chunks in one tensor, int8."""
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

    It holds a single simulation: a call of the network starts afresh and replaces what was recorded
    before; :meth:`snm.SpikingNetwork.step` adds to it as long as its simulation goes on.

    Args:
        layers: the layers to record, by path.

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

    @property
    def timesteps(self) -> int:
        """The number T of time steps that were recorded; 0 before any call."""
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


class Recorder(Observer):
    """An observer that fills a recording.

    Args:
        recording: one that is empty, or that holds a simulation that goes on.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._simulation: weakref.ref[object] | None = None
        # Here, not around the function: it imports the compiler, which takes a second.
        self._record = torch.compiler.disable(
            _record, reason="SpikingNetwork: what is recorded cannot be one graph"
        )

    def asks(self, fire: Fire) -> tuple[Ask, ...]:
        """Asks for the drive of layers whose membranes are recorded, and the spikes of others."""
        if fire.path not in self.recording:
            return ()
        return ("drive",) if "membrane" in self.recording[fire.path].what else ("spikes",)

    def see(self, launch: Launch) -> None:
        """Records a recorded layer; another simulation takes the place of the one before."""
        # A function: a method would hold the recorder in a circle, and what it has recorded.
        self._record(self, launch)


def _record(recorder: Recorder, launch: Launch) -> None:
    """Adds a launch to what a recorder records."""
    layers = recorder.recording._layers
    if recorder._simulation is None or recorder._simulation() is not launch.simulation:
        for layer in layers.values():
            layer._clear()
        recorder._simulation = weakref.ref(launch.simulation)
    if launch.fire.path in layers:
        layers[launch.fire.path]._add(launch)


class _Chosen:
    """Takes chosen neurons out of tensors that have an entry for each neuron.

    Args:
        path: the layer's path, for a message.
        neurons: flat indices, int64 ``[n]``.
        shape: that of the neurons of one image.
        device: the one that the tensors are on.
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
        """The chosen neurons' entries ``[..., n]`` of a tensor ``[..., *shape]``."""
        return value.unsqueeze(-1)[self._at]

    def over_time(self, value: Tensor) -> Tensor:
        """The chosen neurons' entries ``[T, B, n]`` of ``[T, B, *shape]``; what is constant in time
        keeps its stride of 0."""
        if value.stride(0) == 0:
            return self.of(value[:1]).expand(value.shape[0], -1, -1)
        return self.of(value)


def recording_of(
    layers: Iterable[str],
    paths: str | Iterable[str] | None,
    what: Quantity | Iterable[Quantity],
    neurons: Indices | Mapping[str, Indices] | None,
) -> Recording:
    """An empty recording of what :meth:`snm.SpikingNetwork.record` is to record.

    Args:
        layers: the paths of all the network's layers of neurons.
        paths, what, neurons: as :meth:`snm.SpikingNetwork.record` takes them.
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
            path: LayerRecording(path, quantities, _checked_indices(chosen[path]))
            for path in known
            if path in chosen
        }
    )


def _check_paths(argument: str, paths: Iterable[str], known: Sequence[str]) -> None:
    """Refuses paths that are not among the known ones."""
    for path in paths:
        if path not in known:
            raise ValueError(
                f"SpikingNetwork: {argument} must be of layers of neurons, got {path!r}; there are "
                f"{', '.join(known)}"
            )


def _checked_indices(neurons: Indices | None) -> Tensor | None:
    """Indices as int64 ``[n]``; refuses any that are not integers >= 0."""
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

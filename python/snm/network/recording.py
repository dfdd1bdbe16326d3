"""What neurons did at every time step of a simulation."""

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


class Recorder(Observer):
    """Fills a recording.

    Args:
        recording: empty, or of a simulation that goes on.
    """

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._simulation: weakref.ref[object] | None = None
        # Here, not around the method: it imports the compiler, which takes a second.
        self._record = torch.compiler.disable(
            self._add, reason="SpikingNetwork: what is recorded cannot be one graph"
        )

    def asks(self, fire: Fire) -> tuple[Ask, ...]:
        """The drive of recorded layers where membranes are recorded, else their spikes."""
        if fire.path not in self.recording:
            return ()
        return ("drive",) if "membrane" in self.recording[fire.path].what else ("spikes",)

    def see(self, launch: Launch) -> None:
        """Records a recorded layer; another simulation takes the place of the one before."""
        self._record(launch)

    def _add(self, launch: Launch) -> None:
        layers = self.recording._layers
        if self._simulation is None or self._simulation() is not launch.simulation:
            for layer in layers.values():
                layer._clear()
            self._simulation = weakref.ref(launch.simulation)
        if launch.fire.path in layers:
            layers[launch.fire.path]._add(launch)


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

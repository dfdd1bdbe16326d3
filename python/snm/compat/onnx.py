"""Networks at a fixed number of time steps as ONNX models."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm_kernels
from snm_kernels import SNMState
from snm_kernels.windows import adaptive_windows, max_pool_windows

from ..conversion.analysis.pooling import pooling_of_call
from ..network.checks import check_count
from ..network.inputs import check_floating
from ..network.interpret import Values
from ..network.program import Call, Fire, Pooling, Program, Repeat, RunningMax
from ..network.run import Readout, Run
from ..network.spiking import SpikingNetwork
from ..nn import SNMNeuron
from ..optional import check_installed
from .onnx_neuron import DESCRIPTION, DOMAIN, FUNCTION, NAME, OPSET, VERSION

Outputs = Literal["logits", "counts", "spikes"]
OUTPUTS: tuple[str, ...] = get_args(Outputs)


@torch.no_grad()
def to_onnx(
    net: SpikingNetwork,
    path: str | os.PathLike[str],
    *,
    timesteps: int,
    batch: int | None = None,
    outputs: Outputs = "logits",
) -> None:
    """Writes a network's simulation over T time steps as an ONNX model of standard operators.

    The model takes ``images`` ``[B, ...]`` and returns ``logits``, what a call of the network does.
    Each layer of neurons is a call of the function ``SignedNeuronMemory`` in the domain
    ``snm_kernels``, which the file holds: a ``Scan`` over time with the operations of the rule in
    their order. Max poolings are sums over time, ONNX's own pooling and differences. The neurons
    send the same spikes for the same drive,
    bit for bit; but another runtime's convolutions and linear layers may sum in another order, so
    that a membrane next to its threshold may come to lie on the other side of it. Where all sums
    are exact in float32, as with weights and images of few binary digits, whole networks agree.

    Args:
        net: with encoder="direct", in float32.
        path: the file, replaced if there is one; the folder must exist.
        timesteps: T, >= 1.
        batch: images per call, >= 1; None for any number.
        outputs: what the model returns after the logits: ``"logits"``, nothing; ``"counts"``, for
            each layer of neurons how many spikes each has sent, those taken back subtracted, int32
            ``[B, ...]``, named ``"<path> counts"``; ``"spikes"``, what each sends at
            every step, int8 ``[T, B, ...]``, named ``"<path> spikes"``.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is not installed.
        TypeError: net is no SpikingNetwork, or in another dtype than float32; timesteps or batch
            is no integer.
        ValueError: the encoder is another than "direct"; the network is one of integers; timesteps
            or batch is less than 1; outputs is unknown.
        torch.onnx.OnnxExporterError: ONNX lacks an operation that comes before, between or behind
            the neurons.
        OSError: the file cannot be written.

    Warns:
        UserWarning: as a call of the network does for so many time steps.

    >>> from tempfile import TemporaryDirectory
    >>> import onnxruntime
    >>> from snm import convert
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> net, images = convert(model, torch.rand(32, 4)), torch.rand(2, 4)
    >>> with TemporaryDirectory() as folder:
    ...     to_onnx(net, f"{folder}/net.onnx", timesteps=8)
    ...     session = onnxruntime.InferenceSession(f"{folder}/net.onnx")
    >>> [logits] = session.run(None, {"images": images.numpy()})
    >>> logits.shape
    (2, 3)
    """
    check_installed("to_onnx", "onnx", "onnxscript", extra="interchange")
    import onnx

    _check(net, outputs)
    steps = net.checked_timesteps(timesteps)
    assert steps is not None
    if batch is not None:
        check_count("to_onnx", "batch", batch)
    device = net.device
    # torch.export takes a batch of 1 for a fixed one.
    example = torch.zeros(2 if batch is None else batch, *net.image_shape, device=device)
    exported = torch.onnx.export(
        _AtOnce(net, steps, outputs).eval(),
        (example,),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=_names(net, outputs),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},) if batch is None else None,
    )
    assert exported is not None
    model = exported.model_proto
    function = onnx.parser.parse_function(FUNCTION)
    function.doc_string = DESCRIPTION
    model.functions.append(function)
    model.producer_name, model.producer_version = "snm-kernels", snm_kernels.__version__
    onnx.helper.set_model_props(model, {"snm.timesteps": str(steps), "snm.readout": net.readout})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, os.fspath(path))


def _check(net: object, outputs: str) -> None:
    if not isinstance(net, SpikingNetwork):
        raise TypeError(f"to_onnx: net must be a SpikingNetwork, got {type(net).__name__}")
    check_floating("to_onnx", net.integers, "write")
    if net.encoder != "direct":
        raise ValueError(f"to_onnx: encoder must be 'direct', got {net.encoder!r}")
    if net.dtype != torch.float32:
        raise TypeError(f"to_onnx: net must be torch.float32, got {net.dtype}; use net.float()")
    if outputs not in OUTPUTS:
        raise ValueError(f"to_onnx: outputs must be one of {', '.join(OUTPUTS)}, got {outputs!r}")


def _names(net: SpikingNetwork, outputs: Outputs) -> list[str]:
    layers = [] if outputs == "logits" else net.layers
    return ["logits", *(f"{path} {outputs}" for path in layers)]


class _AtOnce(nn.Module):
    """All time steps of a network's simulation, for a tracer to follow."""

    def __init__(self, net: SpikingNetwork, steps: int, outputs: Outputs) -> None:
        super().__init__()
        self.model = net.model
        self.program = net.program
        self.readout: Readout = net.readout
        self.steps = steps
        self.outputs = outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        run = _Run(self.program, self.model, images, readout=self.readout)
        run.advance(self.steps, None)
        answer = run.answer()
        if self.outputs == "logits":
            return (answer,)
        if self.outputs == "spikes":
            return (answer, *run.spikes)
        return (answer, *(run.states[fire.name].m for fire in self.program.neurons))


class _Run(Run):
    """A simulation of all time steps at once whose neurons are calls of the function."""

    def __init__(
        self, program: Program, model: nn.Module, images: Tensor, *, readout: Readout
    ) -> None:
        super().__init__(program, model, images, readout=readout)
        self.spikes: list[Tensor] = []
        """The spikes of each layer, int8 ``[T, B, ...]``."""

    def call(self, call: Call, values: Values) -> Any:
        """Runs an operation of the model; a max pooling by operations that ONNX has."""
        pooling = pooling_of_call(call, self.model)
        if pooling is None:
            return super().call(call, values)
        pooled = call.args[0] if call.args else (call.kwargs or {})["input"]
        return _StandardPooling.of(pooling).maxima(values[pooled.name])

    def pool(self, step: RunningMax, values: Values) -> Tensor:
        """Runs a running maximum by operations that ONNX has."""
        return super().pool(replace(step, pooling=_StandardPooling.of(step.pooling)), values)

    def repeat(self, step: Repeat, values: Values) -> Tensor:
        """A value at every time step, by operations that ONNX has."""
        value = values[step.value]
        repeated: Tensor = value.expand(self.chunk, *value.shape).flatten(0, 1)
        return repeated

    def fire(self, fire: Fire, values: Values) -> None:
        """Calls the function over all time steps."""
        drive, residual = self.drive_of(fire, values)
        neuron = self.neuron(fire)
        if neuron.bias is not None:
            drive = drive + neuron.bias
        if residual is not None:
            drive = drive + residual
        spikes, self.states[fire.name] = _call(neuron, drive)
        self.spikes.append(spikes)
        self.send(fire, spikes, values)


def _call(neuron: SNMNeuron, drive: Tensor) -> tuple[Tensor, SNMState]:
    """Calls the ONNX function of the neuron: spikes and state after all steps."""
    rule = neuron.rule
    negative, (low, high) = rule.negative_threshold, rule.count_bounds
    spikes, v, m = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{NAME}",
        (drive, neuron.threshold),
        {
            "v_init": float(rule.v_init),
            "negative_threshold": math.nan if negative is None else float(negative),
            "strict": int(rule.strict),
            "max_spikes": rule.max_spikes,
            "count_min": low,
            "count_max": high,
        },
        dtypes=(torch.int8, torch.float32, torch.int32),
        shapes=(drive.shape, drive.shape[1:], drive.shape[1:]),
        version=VERSION,
    )
    return spikes, SNMState(v, m)


class _StandardPooling(Pooling):
    """A running maximum over all time steps made of operations that ONNX has.

    >>> x = torch.randint(-1, 2, (4, 1, 2, 7, 5)).to(torch.int8)
    >>> pooling, theta = Pooling(output_size=(3, 2)), torch.rand(2, 7, 5)
    >>> sent, _ = pooling.running_max(x, theta, None, torch.float32)
    >>> same, _ = _StandardPooling.of(pooling).running_max(x, theta, None, torch.float32)
    >>> torch.equal(sent, same)
    True
    """

    @classmethod
    def of(cls, pooling: Pooling) -> "_StandardPooling":
        """Makes the pooling that has the same windows as another."""
        return cls(*(getattr(pooling, name) for name in Pooling.__slots__))

    def running_max(
        self, x: Tensor, threshold: Tensor | None, total: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Pools spikes as :meth:`Pooling.running_max` does, from the first step on."""
        assert total is None
        assert dtype == torch.float32
        spatial = x.dim() - 3
        if threshold is None:
            # One rounding per step; cumsum may add up in another precision.
            totals = torch.stack(list(accumulate(x)))
        else:
            totals = x.cumsum(0, dtype=torch.int32)
        # A count below 2^24 is exact in float32.
        values = totals.to(torch.float32)
        shared = threshold is None or all(size == 1 for size in threshold.shape[-spatial:])
        if threshold is not None and not shared:
            values = _carried(values, threshold)
        most = self.maxima(values.flatten(0, 1)).unflatten(0, x.shape[:2])
        sent = torch.cat([most[:1], most[1:] - most[:-1]])
        if threshold is not None and shared:
            sent = _carried(sent, threshold)
        return sent, totals[-1]

    def maxima(self, values: Tensor) -> Tensor:
        """The maximum of every window of ``[B, C, ...]``."""
        sizes = values.shape[2:]
        if self.output_size is not None:
            for dim, (size, output) in enumerate(zip(sizes, self.output_size, strict=True), 2):
                windows = adaptive_windows(size, size if output is None else output)
                parts = [
                    values[(slice(None),) * dim + (slice(taps.start, taps.stop),)].amax(
                        dim, keepdim=True
                    )
                    for taps in map(windows.taps, range(windows.output))
                ]
                values = torch.cat(parts, dim)
            return values
        along = zip(sizes, self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        pads = [_ends(*each, self.ceil_mode) for each in along]
        padded = F.pad(values, list(chain.from_iterable(reversed(pads))), value=-math.inf)
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(sizes) - 1]
        return pool(padded, self.kernel_size, self.stride, 0, self.dilation)


def _carried(counts: Tensor, threshold: Tensor) -> Tensor:
    """The amplitudes that spikes carry; those of a silent neuron are 0."""
    return torch.where(threshold == math.inf, 0.0, counts * threshold)


def _ends(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> Sequence[int]:
    """How much padding before and behind a dimension makes the windows of a max pooling.

    >>> _ends(5, 2, 2, 0, 1, True), _ends(5, 2, 2, 0, 1, False), _ends(5, 3, 2, 1, 1, False)
    ((0, 1), (0, 0), (1, 1))
    """
    windows = max_pool_windows(size, kernel, stride, padding, dilation, ceil_mode)
    reach = (windows.output - 1) * stride + dilation * (kernel - 1) + 1
    return padding, max(0, reach - size - padding)

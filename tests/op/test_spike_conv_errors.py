"""What layers of spikes refuse, and how they say so: op, argument, expected, got."""

import re
from typing import Any

import pytest
import torch

from snm_kernels import (
    SNM,
    SNMState,
    backends,
    pack_spike_weight,
    snm_conv,
    snm_linear,
    spike_conv,
    spike_linear,
)
from snm_kernels.ops import rule_arguments

X = torch.zeros(4, 2, 3, 6, 5, dtype=torch.int8)
WEIGHT = torch.zeros(8, 3, 3, 2, dtype=torch.int8)
THETA = torch.ones(8, 1, 1, dtype=torch.int32)
STATE = SNMState(*torch.zeros(2, 2, 8, 4, 4, dtype=torch.int32))
RESIDUAL = torch.zeros(4, 2, 8, 4, 4, dtype=torch.int32)
PACKED = pack_spike_weight(WEIGHT)
FITS = "x must be [T, B, C, *spatial] with 1 or 2 spatial dimensions, got "

# Arguments that differ from a right call, the error, and its text.
OF_LAYERS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x a list": ({"x": [1]}, TypeError, "x must be a tensor, got list"),
    "x floating": ({"x": X.float()}, TypeError, "x must be int8, got torch.float32"),
    "x that requires grad": (
        {"x": X.float().requires_grad_()},
        TypeError,
        "x must be int8, got torch.float32",
    ),
    "x unsigned": ({"x": X.byte()}, TypeError, "x must be int8, got torch.uint8"),
    "x without space": ({"x": X[..., 0, 0]}, ValueError, f"{FITS}[4, 2, 3]"),
    "x of three dimensions of space": (
        {"x": X[..., None]},
        ValueError,
        f"{FITS}[4, 2, 3, 6, 5, 1]",
    ),
    "x of no steps": ({"x": X[:0]}, ValueError, "x must be of T >= 1, got [0, 2, 3, 6, 5]"),
    "x on meta": (
        {"x": X.to("meta")},
        ValueError,
        "weight must be on meta, got cpu",
    ),
    "x smaller than the kernel": (
        {"x": X[..., :1]},
        ValueError,
        "x must be as large as the kernel, pooled and with its padding, got [4, 2, 3, 6, 1]",
    ),
    "x smaller than the kernel once it is pooled": (
        {"pool": 3},
        ValueError,
        "x must be as large as the kernel, pooled and with its padding, got [4, 2, 3, 6, 5]",
    ),
    "x smaller than a window": (
        {"pool": (1, 6), "padding": 9},
        ValueError,
        "x must be as large as a window of pool, got [4, 2, 3, 6, 5]",
    ),
    "x of no width": (
        {"x": X[..., :0], "padding": 2},
        ValueError,
        "x must be as large as a window of pool, got [4, 2, 3, 6, 0]",
    ),
    "weight a number": ({"weight": 1}, TypeError, "weight must be a tensor, got int"),
    "weight int32": (
        {"weight": WEIGHT.int()},
        TypeError,
        "weight must be int8 or float32, got torch.int32",
    ),
    "weight floating, packed not": (
        {"weight": WEIGHT.float(), "packed": PACKED},
        TypeError,
        "packed must be torch.float32, got torch.int8",
    ),
    "weight floating, to be multiplied densely": (
        {"weight": WEIGHT.float(), "threshold": THETA.float(), "dense": True},
        ValueError,
        "dense must be False with a weight of float32, got True",
    ),
    "dense a number": ({"dense": 1}, TypeError, "dense must be a bool, got 1"),
    "weight floating, bias not": (
        {"weight": WEIGHT.float(), "threshold": THETA.float(), "bias": THETA},
        TypeError,
        "bias must be a float32 tensor, got torch.int32",
    ),
    "weight of one dimension of space": (
        {"weight": WEIGHT[..., 0]},
        ValueError,
        "weight must be of 4 dimensions, got [8, 3, 3]",
    ),
    "weight for other channels": (
        {"weight": WEIGHT[:, :2]},
        ValueError,
        "weight must be [K, 3 / 1, *kernel] with K a multiple of 1, got [8, 2, 3, 2]",
    ),
    "weight without a kernel": (
        {"weight": WEIGHT[..., :0]},
        ValueError,
        "weight must be with a kernel >= 1, got [8, 3, 3, 0]",
    ),
    "weight elsewhere": (
        {"weight": WEIGHT.to("meta")},
        ValueError,
        "weight must be on cpu, got meta",
    ),
    "groups that do not divide": (
        {"groups": 3},
        ValueError,
        "weight must be [K, 3 / 3, *kernel] with K a multiple of 3, got [8, 3, 3, 2]",
    ),
    "groups 0": ({"groups": 0}, ValueError, "groups must be an integer >= 1, got 0"),
    "groups True": ({"groups": True}, ValueError, "groups must be an integer >= 1, got True"),
    "groups a float": ({"groups": 1.0}, ValueError, "groups must be an integer >= 1, got 1.0"),
    "stride 0": (
        {"stride": (1, 0)},
        ValueError,
        "stride must be an integer >= 1, or 2 of them, got (1, 0)",
    ),
    "stride a float": (
        {"stride": 1.5},
        ValueError,
        "stride must be an integer >= 1, or 2 of them, got 1.5",
    ),
    "stride None": (
        {"stride": None},
        ValueError,
        "stride must be an integer >= 1, or 2 of them, got None",
    ),
    "padding negative": (
        {"padding": -1},
        ValueError,
        "padding must be an integer >= 0, or 2 of them, got -1",
    ),
    "padding a word": (
        {"padding": "same"},
        ValueError,
        "padding must be an integer >= 0, or 2 of them, got same",
    ),
    "dilation True": (
        {"dilation": True},
        ValueError,
        "dilation must be an integer >= 1, or 2 of them, got True",
    ),
    "pool of three": (
        {"pool": (1, 1, 1)},
        ValueError,
        "pool must be an integer >= 1, or 2 of them, got (1, 1, 1)",
    ),
    "pool 0": ({"pool": 0}, ValueError, "pool must be an integer >= 1, or 2 of them, got 0"),
    "packed a list": ({"packed": [1]}, TypeError, "packed must be a tensor, got [1]"),
    "packed of another dtype": (
        {"packed": PACKED.int()},
        TypeError,
        "packed must be torch.int8, got torch.int32",
    ),
    "packed of another weight": (
        {"packed": PACKED[64:]},
        ValueError,
        f"packed must be of shape [{64 * 18}], got [{64 * 17}]",
    ),
    "packed elsewhere": (
        {"packed": PACKED.to("meta")},
        ValueError,
        "packed must be on cpu, got meta",
    ),
    "bias a number": ({"bias": 1}, TypeError, "bias must be an int32 tensor, got int"),
    "bias floating": (
        {"bias": THETA.float()},
        TypeError,
        "bias must be an int32 tensor, got torch.float32",
    ),
    "bias too long": (
        {"bias": THETA[:7]},
        ValueError,
        "bias must broadcast to [8, 4, 4], got [7, 1, 1]",
    ),
    "bias elsewhere": ({"bias": THETA.to("meta")}, ValueError, "bias must be on cpu, got meta"),
    "backend unknown": (
        {"backend": "metal"},
        ValueError,
        "backend must be 'auto' or one of cpu, cuda, triton, reference, got metal",
    ),
    "all on meta": (
        {
            "x": X.to("meta"),
            "weight": WEIGHT.to("meta"),
            "threshold": THETA.to("meta"),
        },
        ValueError,
        "x must be on a cpu or cuda device for backend='auto', got meta; "
        "backend='reference' runs on any device",
    ),
}
OF_NEURONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "rule a name": ({"rule": "snm"}, TypeError, "rule must be an SNMRule, got snm"),
    "emit amplitudes": (
        {"emit": "amplitude"},
        ValueError,
        "emit must be 'spike' or 'none', got amplitude",
    ),
    "threshold a number": (
        {"threshold": 1},
        TypeError,
        "threshold must be an int32 tensor, got int",
    ),
    "threshold floating": (
        {"threshold": THETA.float()},
        TypeError,
        "threshold must be an int32 tensor, got torch.float32",
    ),
    "weight floating, threshold not": (
        {"weight": WEIGHT.float()},
        TypeError,
        "threshold must be a float32 tensor, got torch.int32",
    ),
    "weight floating, residual not": (
        {"weight": WEIGHT.float(), "threshold": THETA.float(), "residual": RESIDUAL},
        TypeError,
        "residual must be torch.float32, got torch.int32",
    ),
    "weight floating, membrane not": (
        {"weight": WEIGHT.float(), "threshold": THETA.float(), "state": STATE},
        TypeError,
        "state.v must be torch.float32, got torch.int32",
    ),
    "threshold per channel without its dimensions": (
        {"threshold": THETA[:, 0, 0]},
        ValueError,
        "threshold must broadcast to [8, 4, 4], got [8]",
    ),
    "threshold per sample": (
        {"threshold": THETA.expand(2, 8, 1, 1)},
        ValueError,
        "threshold must broadcast to [8, 4, 4], got [2, 8, 1, 1]",
    ),
    "threshold elsewhere": (
        {"threshold": THETA.to("meta")},
        ValueError,
        "threshold must be on cpu, got meta",
    ),
    "residual a number": ({"residual": 1}, TypeError, "residual must be a tensor, got 1"),
    "residual floating": (
        {"residual": RESIDUAL.float()},
        TypeError,
        "residual must be torch.int32, got torch.float32",
    ),
    "residual without time": (
        {"residual": RESIDUAL[0]},
        ValueError,
        "residual must be of shape [4, 2, 8, 4, 4], got [2, 8, 4, 4]",
    ),
    "residual elsewhere": (
        {"residual": RESIDUAL.to("meta")},
        ValueError,
        "residual must be on cpu, got meta",
    ),
    "state a tensor": (
        {"state": STATE.v},
        TypeError,
        "state must be an SNMState(v, m), got Tensor",
    ),
    "membrane floating": (
        {"state": SNMState(STATE.v.float(), STATE.m)},
        TypeError,
        "state.v must be torch.int32, got torch.float32",
    ),
    "memory of another shape": (
        {"state": SNMState(STATE.v, STATE.m[:1])},
        ValueError,
        "state.m must be of shape [2, 8, 4, 4], got [1, 8, 4, 4]",
    ),
}


def arguments(changed: dict[str, Any]) -> dict[str, Any]:
    return {"x": X, "weight": WEIGHT, "threshold": THETA, **changed}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", [*OF_LAYERS, *OF_NEURONS])
def test_wrong_argument_is_refused(name: str, backend: str) -> None:
    changed, error, message = (OF_LAYERS | OF_NEURONS)[name]
    if name == "all on meta" and backend == "reference":
        return
    with pytest.raises(error) as raised:
        snm_conv(**arguments({"backend": backend, **changed}))
    assert str(raised.value) == f"snm_conv: {message}"


@pytest.mark.parametrize("name", OF_LAYERS)
def test_layer_alone_refuses_the_same(name: str) -> None:
    changed, error, message = OF_LAYERS[name]
    given = arguments(changed)
    del given["threshold"]
    with pytest.raises(error) as raised:
        spike_conv(**given)
    assert str(raised.value) == f"spike_conv: {message}"


FLAT = X[..., 0, 0]
ROWS = WEIGHT[..., 0, 0]
OF_LINEAR: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x of four dimensions": (
        {"x": X[..., 0]},
        ValueError,
        "x must be [T, B, C], got [4, 2, 3, 6]",
    ),
    "x bool": ({"x": FLAT.bool()}, TypeError, "x must be int8, got torch.bool"),
    "x of no steps": ({"x": FLAT[:0]}, ValueError, "x must be of T >= 1, got [0, 2, 3]"),
    "weight with a kernel": (
        {"weight": WEIGHT},
        ValueError,
        "weight must be [K, C], got [8, 3, 3, 2]",
    ),
    "weight for other channels": (
        {"weight": ROWS[:, :2]},
        ValueError,
        "weight must be [K, 3], got [8, 2]",
    ),
    "bias per channel with its dimensions": (
        {"bias": THETA},
        ValueError,
        "bias must broadcast to [8], got [8, 1, 1]",
    ),
    "packed of another weight": (
        {"packed": PACKED},
        ValueError,
        f"packed must be of shape [{64 * 3}], got [{64 * 18}]",
    ),
}


@pytest.mark.parametrize("name", OF_LINEAR)
def test_linear_layer_refuses_a_wrong_argument(name: str) -> None:
    changed, error, message = OF_LINEAR[name]
    given = {"x": FLAT, "weight": ROWS, **changed}
    with pytest.raises(error) as raised:
        spike_linear(**given)
    assert str(raised.value) == f"spike_linear: {message}"
    with pytest.raises(error) as raised:
        snm_linear(**given, threshold=THETA[:, 0, 0])
    assert str(raised.value) == f"snm_linear: {message}"


PACKING: dict[str, tuple[tuple[Any, ...], type[Exception], str]] = {
    "weight a list": (([1],), TypeError, "weight must be a tensor, got list"),
    "weight double": (
        (ROWS.double(),),
        TypeError,
        "weight must be int8 or float32, got torch.float64",
    ),
    "weight of one dimension": (
        (ROWS[0],),
        ValueError,
        "weight must be [K, C / groups, *kernel], got [3]",
    ),
    "weight of three dimensions of space": (
        (WEIGHT[..., None],),
        ValueError,
        "weight must be [K, C / groups, *kernel], got [8, 3, 3, 2, 1]",
    ),
    "groups 0": ((WEIGHT, 0), ValueError, "groups must be an integer >= 1, got 0"),
    "groups a word": ((WEIGHT, "1"), ValueError, "groups must be an integer >= 1, got 1"),
    "groups that do not divide": ((WEIGHT, 3), ValueError, "groups must be a divisor of 8, got 3"),
}


@pytest.mark.parametrize("name", PACKING)
def test_what_cannot_be_packed_is_refused(name: str) -> None:
    given, error, message = PACKING[name]
    with pytest.raises(error) as raised:
        pack_spike_weight(*given)
    assert str(raised.value) == f"pack_spike_weight: {message}"


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_layers_of_floats_are_the_cpus(backend: str) -> None:
    with pytest.raises(TypeError) as raised:
        snm_linear(FLAT, ROWS.float(), THETA[:, 0, 0].float(), backend=backend)
    assert str(raised.value) == (
        f"snm_linear: weight must be int8 with backend={backend!r}, got torch.float32; layers of "
        "float32 run on the CPU: move tensors there, or use torch.nn.functional and snm"
    )


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_backend_that_cannot_run_says_why(backend: str) -> None:
    status = backends()[backend]
    if status.available:
        pytest.skip(f"{backend} is available here")
    with pytest.raises(RuntimeError) as raised:
        spike_conv(X, WEIGHT, backend=backend)
    reason = f"spike_conv: backend '{backend}' is not available: {status.reason}"
    assert str(raised.value) == reason


MOST = 2**31 - 1
# Where torch refuses, its own text.
DIRECT_LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "x int32": ({"x": X.int()}, "x must be int8, got Int"),
    "x of four dimensions": ({"x": X[..., 0]}, "x must be [T, B, C, H, W] with T >= 1, got "),
    "x of no steps": ({"x": X[:0]}, "x must be [T, B, C, H, W] with T >= 1, got [0, 2, 3, 6, 5]"),
    "x smaller than the kernel": (
        {"x": X[..., :1]},
        "x must be as large as the kernel with its padding, got 1",
    ),
    "x of no width": (
        {"x": X[..., :0], "padding": [2, 2]},
        "x must be as large as the kernel with its padding, got 0",
    ),
    "pool larger than x": (
        {"pool": [7, 1], "padding": [9, 9]},
        "x must be as large as the kernel with its padding, got 6",
    ),
    "weight int32": (
        {"weight": WEIGHT.int()},
        "weight must be int8 or float32 [K, C / groups, kernel, kernel], got [8, 3, 3, 2]",
    ),
    "weight of three dimensions": (
        {"weight": WEIGHT[..., 0]},
        "weight must be int8 or float32 [K, C / groups, kernel, kernel], got [8, 3, 3]",
    ),
    "weight for other channels": (
        {"weight": WEIGHT[:, :2]},
        "weight must be for the channels of x, got [8, 2, 3, 2]",
    ),
    "weight without a kernel": (
        {"weight": WEIGHT[..., :0]},
        "weight must be with a kernel of at least 1, got 0",
    ),
    "groups 0": ({"groups": 0}, "weight must be for the channels of x, got [8, 3, 3, 2]"),
    "groups negative": ({"groups": -1}, "weight must be for the channels of x, got [8, 3, 3, 2]"),
    "stride of one": (
        {"stride": [1]},
        "stride, padding, dilation and pool must be two numbers each, got [1]",
    ),
    "packed for spikes": ({"dense": True}, "packed must be int8 ["),
    "stride 0": ({"stride": [1, 0]}, "stride must be an int32 >= 1, got 0"),
    "stride beyond int32": ({"stride": [2**31, 1]}, "stride must be an int32 >= 1, got 2147483648"),
    "padding negative": ({"padding": [-1, 0]}, "padding must be an int32 >= 0, got -1"),
    "padding beyond int32": (
        {"padding": [0, 2**62]},
        f"padding must be an int32 >= 0, got {2**62}",
    ),
    "dilation 0": ({"dilation": [0, 1]}, "dilation must be an int32 >= 1, and so over the whole"),
    "a kernel beyond int32": (
        {"dilation": [MOST // 2, 1]},
        "dilation must be an int32 >= 1, and so over the whole kernel, got 1073741823",
    ),
    "pool 0": ({"pool": [1, 0]}, "pool must be an int32 >= 1, got 0"),
    "packed too short": (
        {"packed": PACKED[:-1]},
        f"packed must be int8 [{64 * 18}] of pack_spike_weight, got [{64 * 18 - 1}]",
    ),
    "packed of two dimensions": (
        {"packed": PACKED.view(18, 64)},
        f"packed must be int8 [{64 * 18}] of pack_spike_weight, got [18, 64]",
    ),
    "packed int32": (
        {"packed": PACKED.int()},
        f"packed must be int8 [{64 * 18}] of pack_spike_weight, got [{64 * 18}]",
    ),
    "packed int8 of a weight in float32": (
        {"weight": WEIGHT.float()},
        f"packed must be float32 [{64 * 18}] of pack_spike_weight, got [{64 * 18}]",
    ),
    "dense with a weight in float32": (
        {"weight": WEIGHT.float(), "packed": PACKED.float(), "dense": True},
        "dense must be False with a weight of float32, got True",
    ),
    "packed with gaps": (
        {"packed": PACKED[:1].expand(64 * 18)},
        f"packed must be int8 [{64 * 18}] of pack_spike_weight, got [{64 * 18}]",
    ),
    "bias floating": (
        {"bias": THETA[:, 0, 0].float()},
        "bias must be contiguous int32 [8] or [4, 4, 8], got [8]",
    ),
    "bias per channel with its dimensions": (
        {"bias": THETA},
        "bias must be contiguous int32 [8] or [4, 4, 8], got [8, 1, 1]",
    ),
    "bias with gaps": (
        {"bias": THETA[:1, 0, 0].expand(8)},
        "bias must be contiguous int32 [8] or [4, 4, 8], got [8]",
    ),
    "more outputs than memory has places": (
        {"padding": [MOST, MOST]},
        "",
    ),
}
DIRECT_NEURONS: dict[str, tuple[dict[str, Any], str]] = {
    "threshold floating": (
        {"threshold": THETA[:, 0, 0].float()},
        "threshold must be contiguous int32 [8] or [4, 4, 8], got [8]",
    ),
    "threshold int32 of a weight in float32": (
        {"weight": WEIGHT.float(), "packed": PACKED.float()},
        "threshold must be contiguous float32 [8] or [4, 4, 8], got [8]",
    ),
    "membrane int32 of a weight in float32": (
        {
            "weight": WEIGHT.float(),
            "packed": PACKED.float(),
            "threshold": THETA[:, 0, 0].float(),
            "v": STATE.v,
        },
        "v must be Float, got Int",
    ),
    "threshold per neuron, channels first": (
        {"threshold": THETA.expand(8, 4, 4).contiguous()},
        "threshold must be contiguous int32 [8] or [4, 4, 8], got [8, 4, 4]",
    ),
    "membrane floating": ({"v": STATE.v.float()}, "v must be Int, got Float"),
    "memory with time": (
        {"m": RESIDUAL},
        "m must be of shape [2, 8, 4, 4], got [4, 2, 8, 4, 4]",
    ),
    "residual floating": ({"residual": RESIDUAL.float()}, "residual must be Int, got Float"),
    "residual without time": (
        {"residual": RESIDUAL[0]},
        "residual must be of shape [4, 2, 8, 4, 4], got [2, 8, 4, 4]",
    ),
    "spikes beyond a byte": ({"max_spikes": 128}, "max_spikes must be 1 to 127, got 128"),
    "counts from above 0": ({"count_min": 1}, "count_min must be an int32 <= 0, got 1"),
    "counts beyond int32": (
        {"count_max": 2**31},
        "count_max must be an int32 >= 0, got 2147483648",
    ),
    "negative threshold negative": (
        {"negative_threshold": -1.0},
        "negative_threshold must be at least 0, got -1",
    ),
}
RIGHT: dict[str, Any] = {
    "x": X,
    "weight": WEIGHT,
    "packed": PACKED,
    "bias": None,
    "stride": [1, 1],
    "padding": [0, 0],
    "dilation": [1, 1],
    "groups": 1,
    "pool": [1, 1],
    "dense": False,
}
RULE = ("v_init", "negative_threshold", "strict", "max_spikes", "count_min", "count_max")
OF_SNM: dict[str, Any] = {
    "threshold": THETA[:, 0, 0].contiguous(),
    "v": None,
    "m": None,
    "residual": None,
    **dict(zip(RULE, rule_arguments(SNM), strict=True)),
    "sends": True,
}


@pytest.mark.parametrize("name", DIRECT_LAYERS)
def test_operator_called_directly_checks_its_arguments(name: str) -> None:
    changed, message = DIRECT_LAYERS[name]
    said = re.escape(f"spike_conv: {message}") if message else None
    with pytest.raises(RuntimeError, match=said):
        torch.ops.snm_kernels.spike_conv(**{**RIGHT, **changed})


@pytest.mark.parametrize("name", [*DIRECT_LAYERS, *DIRECT_NEURONS])
def test_operator_of_neurons_called_directly_checks_its_arguments(name: str) -> None:
    changed, message = (DIRECT_LAYERS | DIRECT_NEURONS)[name]
    said = re.escape(f"snm_conv: {message}") if message else None
    with pytest.raises(RuntimeError, match=said):
        torch.ops.snm_kernels.snm_conv(**{**RIGHT, **OF_SNM, **changed})


def test_right_call_of_the_operators() -> None:
    assert torch.ops.snm_kernels.spike_conv(**RIGHT).shape == (4, 2, 8, 4, 4)
    assert torch.ops.snm_kernels.snm_conv(**RIGHT, **OF_SNM)[0].shape == (4, 2, 8, 4, 4)


def test_more_spikes_than_places_are_refused() -> None:
    # Of one place, whose number alone is beyond 32 bits.
    side = 5900
    x = torch.full((1, 1, 1, side, side), 127, dtype=torch.int8)
    assert x.numel() * 127 > 2**32
    weight = torch.ones(1, 1, 1, 1, dtype=torch.int8)
    message = "spike_conv: x must be of less than 4 billion spikes; run fewer steps at once, got "
    with pytest.raises(RuntimeError, match=re.escape(message)):
        spike_conv(x, weight, pool=side)


def test_weight_too_large_for_its_places_is_refused() -> None:
    weight = torch.zeros(1, 1, dtype=torch.int8).expand(1, 2**26)
    packed = torch.empty(2**32, dtype=torch.int8)
    x = torch.zeros(1, 1, 2**26, dtype=torch.int8)
    message = "spike_conv: weight must be of less than 4 GiB a block of outputs, got "
    with pytest.raises(RuntimeError, match=re.escape(message)):
        spike_linear(x, weight, packed=packed)

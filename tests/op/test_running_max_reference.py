"""The reference of the running maximum against a loop over windows and against PyTorch."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from snm_kernels import RunningMaxOutput, running_max_pool
from support.equality import assert_same_bits
from support.running_max_cases import FORMATS, OUTPUTS, POOL_CASES, WINDOWS, PoolCase

BACKENDS = ("reference", "cpu")


def taps(case: PoolCase, d: int, size: int, output: int, o: int) -> list[int]:
    """The inputs of window o along spatial dimension d, by the definitions in PyTorch's docs."""
    if case.output is not None:
        return list(range(math.floor(o * size / output), math.ceil((o + 1) * size / output)))
    given = (*case.window, *(None, 0, 1)[len(case.window) - 1 :])
    kernel, stride, padding, dilation = (
        each[d] if isinstance(each, tuple) else each for each in given[:4]
    )
    start = o * (kernel if stride is None else stride) - padding
    return [i for i in range(start, start + kernel * dilation, dilation) if 0 <= i < size]


def naive(case: PoolCase, x: Tensor, threshold: Any = None, total: Any = None) -> RunningMaxOutput:
    """Every window of every step by itself, in Python's integers and float32."""
    counted = x.dtype == torch.int8
    kind = torch.int32 if counted else torch.float32
    spatial = x.shape[3:]
    output = case.max_pool(torch.zeros(x.shape[1:])).shape[2:]
    total = torch.zeros(x.shape[1:], dtype=kind) if total is None else total.clone()
    out_dtype = torch.float32 if counted else x.dtype
    sent_dtype = torch.int8 if case.emit == "spike" else case.out_dtype or out_dtype
    sent = torch.zeros((*x.shape[:3], *output), dtype=sent_dtype)
    theta = None
    if threshold is not None:
        theta = torch.as_tensor(threshold, dtype=torch.float32).expand(x.shape[2:])

    def carried(n: Tensor, theta: Tensor) -> Tensor:
        return torch.tensor(0.0) if theta == math.inf else n.to(torch.float32) * theta

    def maximum(b: int, c: int, o: tuple[int, ...]) -> Tensor:
        most = None
        along = (taps(case, d, spatial[d], output[d], o[d]) for d in range(len(o)))
        for place in product(*along):
            value = total[(b, c, *place)]
            if theta is not None and not case.shared:
                value = carried(value, theta[(c, *place)])
            if most is None or value > most or value.isnan():
                most = value.clone()
        assert most is not None
        return most

    places = list(product(*(range(n) for n in (*x.shape[1:3], *output))))
    before = {place: maximum(place[0], place[1], place[2:]) for place in places}
    for t in range(len(x)):
        total += x[t].to(kind)
        for place in places:
            most = maximum(place[0], place[1], place[2:])
            change = most - before[place]
            if case.shared and case.emit == "amplitude":
                assert theta is not None
                change = carried(change, theta[(place[1], *[0] * len(output))])
            sent[(t, *place)] = change.to(sent_dtype)
            before[place] = most
    return RunningMaxOutput(sent, total)


SMALL = [case for case in POOL_CASES if 0 < case.input_steps <= 1500][::9]


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_reference_equals_a_loop_over_windows(case: PoolCase) -> None:
    inputs = case.inputs()
    actual = case.run(inputs, backend="reference")
    inputs.pop("emit")
    inputs.pop("out_dtype", None)
    expected = naive(case, **inputs)
    assert_same_bits(actual.spikes, expected.spikes, "spikes")
    assert_same_bits(actual.total, expected.total, "total")


EXACT = [
    PoolCase(
        f"{name}-{threshold}-{layout}",
        shape,
        window,
        output,
        9,
        threshold=threshold,
        theta="dyadic",
        layout=layout,
    )
    for (name, (shape, window, output)), threshold, layout in product(
        [(name, (*each, None)) for name, each in WINDOWS.items()]
        + [
            (f"adaptive {name}", (shape, (2,), output)) for name, (shape, output) in OUTPUTS.items()
        ],
        ("channel", "neuron"),
        FORMATS,
    )
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", EXACT, ids=str)
def test_total_sent_is_the_maximum_of_the_totals(case: PoolCase, backend: str) -> None:
    inputs = case.inputs()
    sent, total = case.run(inputs, backend=backend)
    counts = inputs["x"].to(torch.int32).cumsum(0, dtype=torch.int32)
    assert torch.equal(total, counts[-1])
    theta = inputs["threshold"]
    for so_far, n in zip(sent.cumsum(0), counts, strict=True):
        assert torch.equal(so_far, case.max_pool(n * theta))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", WINDOWS)
def test_ternary_spikes_stay_ternary(name: str, backend: str) -> None:
    case = PoolCase(name, *WINDOWS[name], time_steps=32, emit="spike")
    sent, _ = case.run(case.inputs(), backend=backend)
    assert sent.unique().tolist() == [-1, 0, 1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_worked_example(backend: str) -> None:
    n = torch.tensor([[1, 0, 0], [1, 0, 1], [-1, 1, 1], [-1, 0, 1]], dtype=torch.int8)
    x = n[:, None, None]
    sent, total = running_max_pool(x, 2, 1, threshold=0.5, emit="spike", backend=backend)
    assert sent[:, 0, 0].tolist() == [[1, 0], [1, 1], [-1, 1], [0, 1]]
    assert total.tolist() == [[[0, 1, 3]]]
    theta = torch.tensor([1.0, 0.75, math.inf])
    sent, _ = running_max_pool(x, 2, 1, threshold=theta, backend=backend)
    assert sent[:, 0, 0].tolist() == [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.75], [-0.25, 0.0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_window(backend: str) -> None:
    x = torch.zeros(3, 1, 1, 6)
    x[1, 0, 0, 2] = math.nan
    sent, total = running_max_pool(x, 2, backend=backend)
    assert sent[:, 0, 0].isnan().tolist() == [
        [False] * 3,
        [False, True, False],
        [False, True, False],
    ]
    assert total.isnan().flatten().tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", FORMATS)
def test_silent_inputs_carry_nothing(layout: str, backend: str) -> None:
    case = PoolCase("silent", (2, 3, 6, 5), (3, 2, 1), threshold="neuron", layout=layout)
    inputs = case.inputs()
    inputs["threshold"] = torch.full((3, 6, 5), math.inf)
    assert_same_bits(case.run(inputs, backend=backend).spikes, torch.zeros(5, 2, 3, 3, 3))

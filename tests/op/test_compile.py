"""The ops under opcheck, torch.compile, torch.export and fake tensors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from snm_kernels import SNMOutput, SNMState, preset, snm
from snm_kernels.compiling import constant_result
from support.cases import CASES, Case
from support.compilation import SPREAD, compiled, operator_arguments
from support.equality import assert_laid_out_as, assert_same_bits, assert_same_run, strides


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize("case", SPREAD, ids=str)
def test_opcheck(case: Case) -> None:
    arguments = operator_arguments(case.inputs())
    torch.library.opcheck(torch.ops.snm_kernels.snm.default, arguments)


@pytest.mark.parametrize("case", [c for c in SPREAD if c.emit != "none"], ids=str)
def test_opcheck_out(case: Case) -> None:
    inputs = case.inputs()
    out = torch.empty_like(snm(**inputs).spikes).fill_(-77)
    arguments = (*operator_arguments(inputs)[:-1], out)
    torch.library.opcheck(torch.ops.snm_kernels.snm_out.default, arguments)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fake_run_has_the_layout_of_the_real_one(case: Case) -> None:
    inputs = case.inputs()
    real = snm(**inputs)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        faked = {k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in inputs.items()}
        if "state" in inputs:
            faked["state"] = SNMState(*(mode.from_tensor(part) for part in inputs["state"]))
        fake = snm(**faked)
    assert (fake.spikes is None) == (real.spikes is None)
    pairs = list(zip(fake.state, real.state, strict=True))
    if real.spikes is not None:
        pairs.append((fake.spikes, real.spikes))
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("case", SPREAD, ids=str)
def test_compiled_equals_eager(case: Case) -> None:
    inputs = case.inputs()
    actual = compiled(snm, "aot_eager")(**inputs)
    assert_same_run(actual, snm(**inputs))
    assert_laid_out_as(inputs["x"], actual)


@pytest.mark.parametrize("case", [SPREAD[0], SPREAD[6]], ids=str)
def test_compiled_by_inductor_equals_eager(case: Case) -> None:
    inputs = case.inputs()
    x, rest = inputs.pop("x"), inputs

    def layer(x: Tensor) -> SNMOutput:
        spikes, state = snm(2.0 * x, **rest)
        return SNMOutput(spikes + 1.0, state)

    actual = compiled(layer, "inductor")(x)
    assert_same_run(actual, layer(x))


def test_compiled_with_dynamic_shapes_is_compiled_once() -> None:
    graphs = 0

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    run = torch.compile(snm, fullgraph=True, backend=count, dynamic=True)
    for steps, batch in ((5, 3), (7, 4), (2, 9)):
        x = torch.randn(steps, batch, 6, generator=torch.Generator().manual_seed(steps))
        theta = torch.linspace(0.5, 1.5, 6)
        assert_same_run(run(x, theta), snm(x, theta))
    assert graphs == 1


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compiled_with_dynamic_shapes_keeps_the_layout(layout: str) -> None:
    run = compiled(snm, "aot_eager", dynamic=True)
    for steps, batch in ((5, 3), (7, 4)):
        inputs = Case("dynamic", steps, (batch, 6, 5, 7), layout=layout, state="given").inputs()
        actual = run(**inputs)
        assert_same_run(actual, snm(**inputs))
        assert_laid_out_as(inputs["x"], actual)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_writes_into_out(backend: str) -> None:
    inputs = Case("out under compile", layout="channels_last", threshold="channel").inputs()
    expected = snm(**inputs)
    out = torch.empty_like(expected.spikes).fill_(-77)
    actual = compiled(snm, backend)(**inputs, out=out)
    assert_same_bits(out, expected.spikes)
    assert_same_run(actual, expected)


def test_compiled_writes_into_the_drive() -> None:
    inputs = Case("in place under compile").inputs()
    expected = snm(**inputs)
    actual = compiled(lambda x, **rest: snm(x, **rest, out=x), "aot_eager")(**inputs)
    assert_same_bits(inputs["x"], expected.spikes)
    assert_same_run(actual, expected)


def test_compiled_reference_equals_eager() -> None:
    inputs = Case("reference under compile", 3).inputs()
    actual = compiled(snm, "aot_eager")(**inputs, backend="reference")
    assert_same_run(actual, snm(**inputs))


class Layer(torch.nn.Module):
    """A layer as a network would hold it."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.linspace(0.5, 1.5, 6)[:, None, None])
        self.arguments = arguments

    def forward(self, x: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spikes, (v, m) = snm(x, self.threshold, state=SNMState(v, m), **self.arguments)
        return spikes, v, m


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("emit", ["amplitude", "spike"])
def test_exported_program_runs_with_another_batch(emit: str, strict: bool) -> None:
    layer = Layer(rule=preset("snm-zero"), emit=emit)

    def inputs(batch: int) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.randn(4, batch, 6, 5, 7, generator=torch.Generator().manual_seed(batch))
        return x, torch.zeros(batch, 6, 5, 7), torch.zeros(batch, 6, 5, 7, dtype=torch.int32)

    batch = torch.export.Dim("batch", min=2)
    dynamic = {"x": {1: batch}, "v": {0: batch}, "m": {0: batch}}
    program = torch.export.export(layer, inputs(3), dynamic_shapes=dynamic, strict=strict)
    assert "snm_kernels.snm.default" in program.graph_module.code
    for batch_size in (3, 8):
        arguments = inputs(batch_size)
        for ours, theirs in zip(program.module()(*arguments), layer(*arguments), strict=True):
            assert_same_bits(ours, theirs)
            assert strides(ours) == strides(theirs)


def test_compiled_error_names_the_argument() -> None:
    with pytest.raises(Exception, match="snm: threshold must broadcast to"):
        compiled(snm, "aot_eager")(torch.zeros(4, 2, 3), torch.ones(2))


def test_a_constant_result_is_marked_as_torch_marks_it() -> None:
    def ours() -> None: ...

    def theirs() -> None: ...

    assert vars(constant_result(ours)) == vars(torch.compiler.assume_constant_result(theirs))

"""Layers of spikes on the CPU: parity, chunks, threads, instruction sets, compile, memory."""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from snm_kernels import (
    SNMOutput,
    SNMState,
    pack_spike_weight,
    preset,
    snm,
    snm_conv,
    snm_linear,
    spike_conv,
    spike_linear,
)
from snm_kernels.ops import rule_arguments
from support.equality import assert_same_bits, assert_same_run
from support.isa import (
    MATRICES,
    NEEDED,
    USABLE,
    USABLE_MATRICES,
    processor_flags,
    run_with_isa,
)
from support.spike_conv_cases import CONV_CASES, FLOAT_CASES, OF_NEURONS, ConvCase, as_floats
from support.spike_conv_parity import (
    BULK,
    BULK_NEURON_STEPS,
    FLOAT_BULK,
    assert_layer_layout,
    compare_layer,
    compare_threads,
)

EVERY_CASE = CONV_CASES + FLOAT_CASES
PARITY = ("-m", "support.spike_conv_parity", "--backend", "cpu")


def test_case_names_are_unique() -> None:
    assert len({case.name for case in EVERY_CASE}) == len(EVERY_CASE)


@pytest.mark.parametrize("case", EVERY_CASE, ids=str)
def test_cpu_equals_reference(case: ConvCase) -> None:
    assert compare_layer(case, "cpu") == case.neuron_steps


@pytest.mark.parametrize("case", BULK, ids=str)
def test_cpu_equals_reference_in_bulk(case: ConvCase) -> None:
    assert compare_layer(case, "cpu") * len(BULK) >= BULK_NEURON_STEPS


@pytest.mark.parametrize("case", FLOAT_BULK, ids=str)
def test_cpu_equals_reference_in_bulk_of_floats(case: ConvCase) -> None:
    assert compare_layer(case, "cpu") == case.neuron_steps


@pytest.mark.parametrize("bulk", [BULK, FLOAT_BULK], ids=["integers", "floats"])
def test_cases_send_spikes_of_both_signs(bulk: list[ConvCase]) -> None:
    """What never fires compares nothing."""
    assert len(bulk) > 20
    sent = torch.zeros(3, dtype=torch.int64)
    for case in bulk:
        if case.emit == "spike":
            spikes = case.run(case.inputs()).spikes
            sent += torch.stack([(spikes < 0).sum(), (spikes == 0).sum(), (spikes > 0).sum()])
    share = sent / sent.sum()
    assert share.min() > 0.02


# The best one is what test_cpu_equals_reference runs.
@pytest.mark.parametrize("isa", [isa for isa in NEEDED if isa != USABLE[0]])
@pytest.mark.parametrize("floats", [False, True], ids=["integers", "floats"])
def test_isa_equals_reference(isa: str, floats: bool) -> None:
    if isa not in USABLE:
        pytest.skip(f"this processor lacks {sorted(NEEDED[isa] - processor_flags())}")
    process = run_with_isa(isa, *PARITY, "--with-bulk", *["--floats"] * floats)
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    assert summary["isa"] == isa
    cases = FLOAT_CASES + FLOAT_BULK if floats else CONV_CASES + BULK
    assert summary["cases"] == len(cases)
    assert summary["neuron_steps"] == sum(case.neuron_steps for case in cases)


@pytest.mark.parametrize("matrix", [each for each in MATRICES if each != USABLE_MATRICES[0]])
def test_matrix_equals_reference(matrix: str) -> None:
    if matrix not in USABLE_MATRICES:
        pytest.skip(f"this processor lacks {sorted(MATRICES[matrix] - processor_flags())}")
    process = run_with_isa(USABLE[0], *PARITY, "--every=3", matrix=matrix)
    assert process.returncode == 0, process.stderr
    summary = json.loads(process.stdout)
    assert summary["failures"] == []
    assert (summary["isa"], summary["matrix"]) == (USABLE[0], matrix)
    assert summary["cases"] >= len(CONV_CASES) // 3


@pytest.mark.parametrize("case", [c for c in EVERY_CASE if c.time_steps > 4][::3], ids=str)
def test_chunks_equal_one_run(case: ConvCase) -> None:
    inputs = case.inputs()
    whole = case.run(inputs)
    sent, state = [], inputs.pop("state", None)
    x, residual = inputs.pop("x"), inputs.pop("residual", None)
    for begin, end in pairwise((0, 1, 4, case.time_steps)):
        part = None if residual is None else residual[begin:end]
        spikes, state = case.run({"x": x[begin:end], "residual": part, "state": state, **inputs})
        sent.append(spikes)
    assert_same_run(SNMOutput(None if whole.spikes is None else torch.cat(sent), state), whole)


@pytest.mark.parametrize("case", EVERY_CASE[::7], ids=str)
def test_layer_in_one_launch_equals_a_layer_and_its_neurons(case: ConvCase) -> None:
    inputs = case.inputs()
    whole = case.run(inputs)
    # Biases are added in the layer.
    neurons = {name: inputs[name] for name in OF_NEURONS if name in inputs}
    assert_same_run(snm(case.drive(inputs), **neurons), whole)


@pytest.fixture
def _restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


SPLIT = [
    ConvCase("one image", (1, 64, 16, 16), 64, time_steps=8),
    ConvCase("images", (5, 20, 9, 9), 70, time_steps=8, layout="contiguous"),
    ConvCase("a linear layer", (1, 1000), 500, time_steps=8, density=0.5),
    ConvCase("graded", (3, 17, 20, 30), 9, spikes="graded", pool=2, density=0.9),
    ConvCase("depthwise", (2, 64, 14, 14), 64, groups=64, time_steps=8, residual="constant"),
    ConvCase("1d", (2, 40, 500), 40, kernel=5, padding=2, threshold="neuron"),
    ConvCase("many steps", (3, 70, 6, 5), 90, time_steps=70, residual="contiguous", bias="neuron"),
    ConvCase("few pixels", (1, 40, 3, 3), 200, time_steps=3, padding=0, stride=2),
]


@pytest.mark.usefixtures("_restored_threads")
@pytest.mark.parametrize("case", SPLIT + as_floats(SPLIT), ids=str)
def test_threads_change_no_bit(case: ConvCase) -> None:
    assert list(compare_threads(case, "cpu", [1, 2, 3])) == [1, 2, 3]


SPREAD = [
    ConvCase("2d", packed=True),
    ConvCase("weight packed here", residual="contiguous", state="given"),
    ConvCase("burst", rule=preset("burst"), bias="neuron", threshold="neuron", packed=True),
    ConvCase("sends nothing", emit="none", state="permuted", packed=True),
    ConvCase("contiguous", layout="contiguous", residual="constant", packed=True),
    ConvCase("groups and pool", (2, 6, 8, 9), groups=3, pool=2, stride=(1, 2), packed=True),
    ConvCase("1d", (2, 5, 17), residual="channels_last", state="given", packed=True),
    ConvCase("linear", (3, 37), 70, bias="channel", residual="constant", packed=True),
    ConvCase("linear, packed here", (3, 37), 70, state="given"),
    ConvCase("no samples", (0, 5, 6, 7), packed=True),
    ConvCase("one place", (2, 5, 3, 3), padding=0, packed=True),
    ConvCase("one of each", (1, 1, 1, 1), 1, 1, padding=0, packed=True),
    *as_floats([ConvCase("some of float32", state="given", bias="neuron", residual="constant")]),
    *as_floats([ConvCase("linear of float32", (3, 37), 70, bias="channel", packed=True)]),
]


def compiled(function: Callable[..., Any], backend: str, **options: Any) -> Callable[..., Any]:
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, backend=backend, **options)


@pytest.mark.parametrize("case", SPREAD, ids=str)
def test_compiled_equals_eager(case: ConvCase) -> None:
    inputs = case.inputs()
    actual = compiled(lambda **given: case.run(given), "aot_eager")(**inputs)
    assert_same_run(actual, case.run(inputs))
    assert_layer_layout(actual)
    drive = compiled(lambda **given: case.drive(given), "aot_eager")(**inputs)
    assert_same_bits(drive, case.drive(inputs))


@pytest.mark.parametrize("case", [SPREAD[1], SPREAD[7]], ids=str)
def test_compiled_by_inductor_equals_eager(case: ConvCase) -> None:
    inputs = case.inputs()
    actual = compiled(lambda **given: case.run(given), "inductor")(**inputs)
    assert_same_run(actual, case.run(inputs))


def test_compiled_with_dynamic_shapes() -> None:
    def run(x: Tensor, weight: Tensor, threshold: Tensor) -> SNMOutput:
        return snm_conv(x, weight, threshold, padding=1, stride=2)

    fast = compiled(run, "aot_eager", dynamic=True)
    for steps, batch, height in ((5, 3, 7), (4, 2, 9)):
        inputs = ConvCase("dynamic", (batch, 4, height, 8), time_steps=steps).inputs()
        given = [inputs[name] for name in ("x", "weight", "threshold")]
        assert_same_run(fast(*given), run(*given))


def test_compiled_reference_equals_eager() -> None:
    case = ConvCase("reference under compile", bias="neuron", state="given", time_steps=3)
    inputs = case.inputs()
    actual = compiled(lambda **given: case.run(given, backend="reference"), "aot_eager")(**inputs)
    assert_same_run(actual, case.run(inputs))


class Layer(torch.nn.Module):
    """A layer as a network would hold it."""

    def __init__(self, case: ConvCase) -> None:
        super().__init__()
        inputs = case.inputs()
        self.case = case
        self.register_buffer("weight", inputs["weight"])
        self.register_buffer("packed", pack_spike_weight(inputs["weight"], case.groups))
        self.register_buffer("threshold", inputs["threshold"])

    def forward(self, x: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tensors = {"weight": self.weight, "packed": self.packed, "threshold": self.threshold}
        state = SNMState(v, m)
        spikes, (v, m) = self.case.run({"x": x, "state": state, **tensors, **self.case.places})
        return spikes, v, m


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 6, 7), (3, 5, 9), (3, 20)], ids=["2d", "1d", "linear"])
def test_exported_program_runs_with_another_batch(shape: tuple[int, ...], strict: bool) -> None:
    layer = Layer(ConvCase("exported", shape))

    def inputs(batch: int) -> tuple[Tensor, Tensor, Tensor]:
        case = ConvCase("exported", (batch, *shape[1:]), state="given")
        given = case.inputs()
        return given["x"], *given["state"]

    batch = torch.export.Dim("batch", min=2)
    dynamic = {"x": {1: batch}, "v": {0: batch}, "m": {0: batch}}
    program = torch.export.export(layer, inputs(3), dynamic_shapes=dynamic, strict=strict)
    assert "snm_kernels.snm_conv.default" in program.graph_module.code
    for batch_size in (3, 8):
        arguments = inputs(batch_size)
        for ours, theirs in zip(program.module()(*arguments), layer(*arguments), strict=True):
            assert_same_bits(ours, theirs)


def operator(
    case: ConvCase, inputs: dict[str, Any], neurons: bool, dense: bool
) -> tuple[Any, tuple[Any, ...]]:
    """The operator of a two-dimensional case and its arguments."""

    def two(name: str) -> list[int]:
        value = inputs[name]
        return [value, value] if isinstance(value, int) else list(value)

    weight, channels = inputs["weight"], case.outputs
    packed = pack_spike_weight(weight, case.groups, dense)
    theta, bias = (
        None if value is None else _as_operators_take(value, channels)
        for value in (inputs["threshold"], inputs.get("bias"))
    )
    places = (two("stride"), two("padding"), two("dilation"), case.groups, two("pool"))
    first = (inputs["x"], weight, packed)
    if not neurons:
        return torch.ops.snm_kernels.spike_conv.default, (*first, bias, *places, dense)
    v, m = inputs.get("state", (None, None))
    given = (*first, theta, v, m, bias, inputs.get("residual"), *places, dense)
    rule = (*rule_arguments(case.rule), case.emit == "spike")
    return torch.ops.snm_kernels.snm_conv.default, (*given, *rule)


def _as_operators_take(value: Tensor, channels: int) -> Tensor:
    """A parameter per channel or neuron as ``[K]`` or ``[H, W, K]``."""
    if value.shape[-2:] == (1, 1):
        return value.reshape(channels)
    return value.permute(1, 2, 0).contiguous()


TWO_DIMENSIONAL = [case for case in SPREAD if case.spatial == 2]


def test_groups_that_cannot_be_put_together_take_little_memory() -> None:
    weight = torch.ones(2 * 2039, 1, 3, 3, dtype=torch.int8)
    assert pack_spike_weight(weight, 2039, dense=True).numel() == 2039 * 16 * 64


@pytest.mark.parametrize("neurons", [True, False], ids=["neurons", "drive"])
@pytest.mark.parametrize("case", TWO_DIMENSIONAL, ids=str)
def test_opcheck(case: ConvCase, neurons: bool) -> None:
    torch.library.opcheck(*operator(case, case.inputs(), neurons, dense=False))


def test_opcheck_of_the_dense_way() -> None:
    case = TWO_DIMENSIONAL[0]
    torch.library.opcheck(*operator(case, case.inputs(), True, dense=True))


@pytest.mark.parametrize("case", [*SPREAD, *EVERY_CASE[::5]], ids=str)
def test_fake_run_has_the_layout_of_the_real_one(case: ConvCase) -> None:
    inputs = case.inputs()

    def results(given: dict[str, Any]) -> list[Tensor]:
        spikes, state = case.run(given)
        return [case.drive(given), *state, *([] if spikes is None else [spikes])]

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = {k: mode.from_tensor(v) for k, v in inputs.items() if isinstance(v, Tensor)}
        fakes = inputs | fakes
        if "state" in inputs:
            fakes["state"] = SNMState(*map(mode.from_tensor, inputs["state"]))
        fake = results(fakes)
    for ours, theirs in zip(fake, results(inputs), strict=True):
        assert (ours.shape, ours.dtype, ours.stride()) == (
            theirs.shape,
            theirs.dtype,
            theirs.stride(),
        )


def test_memory_of_runs_is_given_back() -> None:
    case = ConvCase("repeated", (1, 64, 16, 16), 64, time_steps=16, density=0.5, packed=True)
    inputs = case.inputs()
    resident = []
    for _ in range(3):
        for _ in range(20):
            case.run(inputs)
        with open("/proc/self/statm") as file:
            resident.append(4096 * int(file.read().split()[1]))
    # A run makes over a megabyte.
    assert resident[-1] - resident[0] < 10 * 2**20


def test_arguments_are_not_changed_and_states_are_new() -> None:
    case = ConvCase("kept", state="given", residual="contiguous", bias="neuron")
    inputs = case.inputs()
    kept = [part.clone() for part in inputs["state"]]
    state = case.run(inputs).state
    for part, before, after in zip(inputs["state"], kept, state, strict=True):
        assert torch.equal(part, before)
        assert part.data_ptr() != after.data_ptr()


def test_offsets_beyond_32_bits() -> None:
    step = 2**31 + 5
    # Pages that nobody writes are never backed by memory.
    buffer = torch.empty(2 * step + 256, dtype=torch.int8)
    x = buffer.as_strided((3, 1, 4, 8, 8), (step, 256, 1, 32, 4))
    small = torch.randint(-1, 2, (3, 1, 4, 8, 8), dtype=torch.int8)
    x.copy_(small)
    weight = torch.randint(-127, 128, (5, 4, 3, 3), dtype=torch.int8)
    assert torch.equal(spike_conv(x, weight), spike_conv(small, weight))


def test_a_weight_that_reaches_far_into_a_block() -> None:
    """Places in a block are numbers of 32 bits, unsigned."""
    inputs = 2**25 + 2**24
    weight = torch.zeros(1, 1, dtype=torch.int8).expand(1, inputs)
    # The weight's place of the last input, in pages that are never backed by memory but for it.
    packed = torch.empty(64 * inputs, dtype=torch.int8)
    packed[-64:] = 0
    packed[-64] = 42 - 128
    x = torch.zeros(1, 1, inputs, dtype=torch.int8)
    x[0, 0, -1] = -1
    assert spike_linear(x, weight, packed=packed).item() == -42


def test_plain_pairs_are_states() -> None:
    case = ConvCase("pairs", state="given")
    inputs = case.inputs()
    assert_same_run(case.run(inputs, state=tuple(inputs["state"])), case.run(inputs))


def test_linear_layer_equals_a_convolution_of_one_place() -> None:
    inputs = ConvCase("one place", (3, 40), 70, bias="channel").inputs()
    linear = snm_linear(**inputs)
    wide = {name: inputs[name][..., None, None] for name in ("x", "weight", "threshold", "bias")}
    conv = snm_conv(**(inputs | wide))
    assert_same_bits(linear.spikes, conv.spikes[..., 0, 0])
    assert_same_bits(linear.state.v, conv.state.v[..., 0, 0])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("outputs", [2, 64, 66, 128, 130, 258])
def test_packed_weight_is_as_documented(outputs: int, groups: int) -> None:
    weight = torch.randint(-128, 128, (outputs * groups, 3, 2, 3), dtype=torch.int8)
    packed = pack_spike_weight(weight, groups)
    blocks = -(-outputs // 64)
    wide = 1 + (blocks % 2 == 0)
    # A group, blocks side by side, places, channels; then words of two outputs.
    ordered = packed.view(groups, blocks // wide, 2, 3, 3, wide, 32, 2)
    ordered = ordered ^ torch.tensor([-128, 0], dtype=torch.int8)
    for k in range(blocks * 64):
        block, inside = divmod(k, 64)
        half, word = divmod(inside, 32)
        found = ordered[:, block // wide, :, :, :, block % wide, word, half]
        if k >= outputs:
            assert found.eq(0).all()
            continue
        assert torch.equal(found, weight.view(groups, outputs, 3, 2, 3)[:, k].permute(0, 2, 3, 1))

"""Networks in onnxruntime send the spikes that they send here."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import snm
import snm_kernels
from snm.compat.onnx import _StandardPooling, to_onnx
from snm.compat.onnx_neuron import DOMAIN, FUNCTION, NAME, OPSET, VERSION
from snm.demo.data import load_images, load_network
from snm.network.program import Pooling
from snm_kernels import PRESETS, SNMRule
from support.cases import RULES, aimed_run, thetas
from support.interchange import everything, trains
from support.networks import exact_network
from support.running_max_cases import POOL_CASES, PoolCase

ALL_RULES = {**{name: snm.preset(name) for name in PRESETS}, **RULES}

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


def session(model: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def of_neuron(rule: SNMRule) -> onnxruntime.InferenceSession:
    """A model of the function alone."""
    negative = rule.negative_threshold
    call = onnx.helper.make_node(
        NAME,
        ["drive", "threshold"],
        ["spikes", "v", "m"],
        domain=DOMAIN,
        v_init=float(rule.v_init),
        negative_threshold=float("nan") if negative is None else float(negative),
        strict=int(rule.strict),
        max_spikes=rule.max_spikes,
        count_min=rule.count_bounds[0],
        count_max=rule.count_bounds[1],
    )
    kinds = {"spikes": onnx.TensorProto.INT8, "m": onnx.TensorProto.INT32}

    def info(name: str, shape: list[str]) -> onnx.ValueInfoProto:
        kind = kinds.get(name, onnx.TensorProto.FLOAT)
        return onnx.helper.make_tensor_value_info(name, kind, shape)

    graph = onnx.helper.make_graph(
        [call],
        "neuron",
        [info("drive", ["T", "B", "N"]), info("threshold", ["N"])],
        [info("spikes", ["T", "B", "N"]), info("v", ["B", "N"]), info("m", ["B", "N"])],
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=[
            onnx.helper.make_opsetid("", OPSET),
            onnx.helper.make_opsetid(DOMAIN, VERSION),
        ],
        functions=[onnx.parser.parse_function(FUNCTION)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return session(model.SerializeToString())


@pytest.mark.parametrize("theta", ["ordinary", "silent", "fine"])
@pytest.mark.parametrize("rule", ALL_RULES.values(), ids=ALL_RULES)
def test_function_equals_reference(rule: SNMRule, theta: str) -> None:
    g = torch.Generator().manual_seed(0)
    threshold = thetas(theta, (500,), torch.float32, g)
    x, _ = aimed_run(rule, threshold, (12, 2, 500), torch.float32, g)
    x[5, 0, :7] = torch.nan
    spikes, (v, m) = snm_kernels.snm(x, threshold, rule=rule, emit="spike", backend="reference")
    found = of_neuron(rule).run(None, {"drive": x.numpy(), "threshold": threshold.numpy()})
    for got, expected in zip(found, (spikes, v, m), strict=True):
        assert np.array_equal(got, expected.numpy(), equal_nan=True)
    assert rule.count_bounds == (0, 0) or (spikes != 0).any()


def standard_cases() -> list[PoolCase]:
    """Those that a network in float32 starts with."""
    return [
        case
        for case in POOL_CASES
        if case.dtype in (torch.int8, torch.float32)
        and case.emit == "amplitude"
        and case.out_dtype in (None, torch.float32)
        and case.total is None
        and case.layout == "contiguous"
        and case.drive != "special"
        and case.theta != "NaN"
        and case.threshold != "number"
        and case.shape[1] > 0
    ]


@pytest.mark.parametrize("case", standard_cases(), ids=str)
def test_standard_pooling_equals_the_op(case: PoolCase) -> None:
    given = case.inputs()
    x, threshold = given["x"], given.get("threshold")
    pooling = windows(case)
    expected, _ = pooling.running_max(x, threshold, None, torch.float32)
    found, _ = _StandardPooling.of(pooling).running_max(x, threshold, None, torch.float32)
    assert torch.equal(found, expected)


def windows(case: PoolCase) -> Pooling:
    """Its windows as a network's program has them."""

    def each(value: Any) -> tuple[Any, ...]:
        return tuple(value) if isinstance(value, tuple | list) else (value,) * case.spatial

    if case.output is not None:
        return Pooling(output_size=each(case.output))
    given = (*case.window, *(None, 0, 1, False)[len(case.window) - 1 :])
    kernel, stride, padding, dilation, ceil_mode = given
    stride = kernel if stride is None else stride
    return Pooling(each(kernel), each(stride), each(padding), each(dilation), bool(ceil_mode))


def assert_same_spikes(
    net: snm.SpikingNetwork, folder: Path, images: Tensor, timesteps: int
) -> None:
    """Compares a model's spikes and logits with the network's."""
    to_onnx(net, folder / "net.onnx", timesteps=timesteps, outputs="spikes")
    model = session(str(folder / "net.onnx"))
    names = [output.name for output in model.get_outputs()]
    assert names == ["logits", *(f"{layer} spikes" for layer in net.layers)]
    for count in (1, len(images)):
        logits, *found = model.run(None, {"images": images[:count].numpy()})
        expected = trains(net, images[:count], timesteps)
        for got, spikes in zip(found, expected.values(), strict=True):
            assert got.dtype == np.int8
            assert np.array_equal(got, spikes.numpy())
        answer = net(images[:count], timesteps=timesteps).numpy()
        assert np.array_equal(logits, answer)


def test_spikes_of_a_network_of_exact_sums(tmp_path: Path) -> None:
    rule = SNMRule(0.25, 0.5, strict=True, max_spikes=3, count_min=-1, count_max=9)
    net, images = everything(rule)
    expected = trains(net, images, 4)
    assert any((spikes < 0).any() for spikes in expected.values())
    assert any((spikes > 1).any() for spikes in expected.values())
    assert any(neuron.threshold.isinf().any() for neuron in net.layers.values())
    assert all(neuron.bias is not None for neuron in net.layers.values())
    assert any(fire.residual for fire in net.program.neurons)
    assert_same_spikes(net, tmp_path, images, 4)


def test_spikes_of_a_network_that_pools_everywhere(tmp_path: Path) -> None:
    model, calibration, images = exact_network("pooled")
    net = snm.convert(model, calibration, preset="snm-zero")
    assert net.program.tail_pools
    assert_same_spikes(net, tmp_path, images, 4)


def test_the_model_holds_standard_operators_and_one_function(tmp_path: Path) -> None:
    model, calibration, images = exact_network("residual")
    net = snm.convert(model, calibration, readout="count")
    to_onnx(net, tmp_path / "net.onnx", timesteps=4, batch=3, outputs="counts")
    written = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert [(function.domain, function.name) for function in written.functions] == [(DOMAIN, NAME)]
    assert "u - s * threshold" in written.functions[0].doc_string
    calls = [node for node in written.graph.node if node.domain == DOMAIN]
    assert [node.op_type for node in calls] == [NAME] * len(net.layers)
    assert {node.domain for node in written.graph.node} == {"", DOMAIN}
    assert {node.domain for node in written.functions[0].node} == {""}
    assert {entry.key: entry.value for entry in written.metadata_props}["snm.timesteps"] == "4"
    answer, *counts = session(str(tmp_path / "net.onnx")).run(None, {"images": images.numpy()})
    expected = trains(net, images, 4)
    for got, spikes in zip(counts, expected.values(), strict=True):
        assert got.dtype == np.int32
        assert np.array_equal(got, spikes.sum(0, dtype=torch.int32).numpy())
    assert np.array_equal(answer, net(images, timesteps=4).numpy())
    assert answer.dtype == np.int32


def test_logits_of_the_packaged_network_are_close(tmp_path: Path) -> None:
    """Its sums are not exact: onnxruntime's convolutions round otherwise, which a membrane next to
    its threshold may turn into another spike; only the answer can be compared."""
    images = load_images()
    net = snm.convert(load_network(), images.calibration_images[:100], preset="snm-zero")
    to_onnx(net, tmp_path / "net.onnx", timesteps=8)
    shown = images.test_images[:50]
    [logits] = session(str(tmp_path / "net.onnx")).run(None, {"images": shown.numpy()})
    expected = net(shown, timesteps=8).numpy()
    spread = expected.max() - expected.min()
    assert np.abs(logits - expected).max() < 0.05 * spread
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.98


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    net, path = snm.convert(model, torch.rand(8, 4)), tmp_path / "net.onnx"
    frames = snm.convert(model, torch.rand(8, 4), encoder="frames")
    with pytest.raises(TypeError, match="to_onnx: net must be a SpikingNetwork, got int"):
        to_onnx(3, path, timesteps=4)
    with pytest.raises(ValueError, match="to_onnx: encoder must be 'direct', got 'frames'"):
        to_onnx(frames, path, timesteps=4)
    integers = snm.quantize(net, torch.rand(8, 4))
    with pytest.raises(ValueError, match=r"^to_onnx: takes a floating .*; write it before snm\."):
        to_onnx(integers, path, timesteps=4)
    with pytest.raises(ValueError, match="outputs must be one of logits, counts, spikes, got 'v'"):
        to_onnx(net, path, timesteps=4, outputs="v")
    with pytest.raises(ValueError, match="timesteps must be at least 1, got 0"):
        to_onnx(net, path, timesteps=0)
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        to_onnx(net, path, timesteps=4, batch=0)
    with pytest.raises(TypeError, match=r"to_onnx: net must be torch.float32, got torch.float16"):
        to_onnx(net.half(), path, timesteps=4)
    assert not path.exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs onnx, onnxscript: pip install 'snm-k"):
        to_onnx(None, "net.onnx", timesteps=1)

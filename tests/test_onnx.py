"""Networks in onnxruntime send the spikes that they send here."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import snm
from cases import RULES, aimed_run, thetas
from interchange import everything, trains
from networks import exact_network
from running_max_cases import POOL_CASES, PoolCase
from snm.compat.onnx import _StandardPooling, to_onnx
from snm.compat.onnx_neuron import DOMAIN, FUNCTION, NAME, OPSET, VERSION
from snm.demo.data import load_images, load_network
from snm.program import Pooling
from snm_kernels import PRESETS, SNMRule

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
    x, output = aimed_run(rule, threshold, (12, 2, 500), torch.float32, g, emit="spike")
    x[5, 0, :7] = torch.nan
    output = snm_reference(x, threshold, rule)
    found = of_neuron(rule).run(None, {"drive": x.numpy(), "threshold": threshold.numpy()})
    for got, expected in zip(found, output, strict=True):
        assert np.array_equal(got, expected.numpy(), equal_nan=True)
    assert rule.count_bounds == (0, 0) or (output[0] != 0).any()


def snm_reference(x: Tensor, threshold: Tensor, rule: SNMRule) -> tuple[Tensor, Tensor, Tensor]:
    spikes, (v, m) = snm_kernels_snm(x, threshold, rule)
    return spikes, v, m


def standard_cases() -> list[PoolCase]:
    """Those that a network in float32 starts with."""
    return [
        case
        for case in POOL_CASES
        if case.dtype in (torch.int8, torch.float32)
        and case.emit == "amplitude"
        and case.out_dtype in (None, torch.float32)
        and case.total is None
        and case.drive != "special"
    ]


@pytest.mark.parametrize("case", standard_cases(), ids=str)
def test_standard_pooling_equals_the_op(case: PoolCase) -> None:
    given = case.inputs()
    x, threshold = given["x"], given.get("threshold")
    pooling = windows(case)
    expected, _ = pooling.run(x, threshold, None, torch.float32)
    found, _ = _StandardPooling.of(pooling).run(x, threshold, None, torch.float32)
    assert torch.equal(found, expected)


def windows(case: PoolCase) -> Pooling:
    def each(value: Any) -> tuple[Any, ...]:
        return tuple(value) if isinstance(value, tuple | list) else (value,) * case.spatial

    if case.output is not None:
        return Pooling(output_size=each(case.output))
    kernel, stride, padding, dilation, ceil_mode = (*case.window, None, 0, 1, False)[:5]
    if len(case.window) > 1:
        defaults = (None, None, 0, 1, False)
        kernel, stride, padding, dilation, ceil_mode = (
            *case.window,
            *defaults[len(case.window) :],
        )
    stride = kernel if stride is None else stride
    return Pooling(each(kernel), each(stride), each(padding), each(dilation), bool(ceil_mode))

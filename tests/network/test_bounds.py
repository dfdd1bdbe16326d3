"""Bounds of integer networks follow from their weights, whatever a file or a state says of them."""

import copy
import json
import operator
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import snm
from snm.files import blueprint
from snm.network.integer import most_steps
from snm.network.program import Call, Value
from snm.nn.integer import (
    IntegerConv,
    IntegerLinear,
    IntegerNeuron,
    IntegerReadout,
    IntegerScale,
    IntegerSumPool,
)
from support.networks import exact_network


def quantized(name: str) -> tuple[snm.SpikingNetwork, Tensor]:
    """The network of that name in integers, and images for it."""
    model, calibration, images = exact_network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snm.DeadNeuronWarning)
        net = snm.convert(model, calibration, norm="channel", preset="snm-zero")
    return snm.quantize(net, calibration), images


def bounds_of(net: snm.SpikingNetwork) -> dict[str, Any]:
    """All that layers know of the size of what they read and make."""
    found: dict[str, Any] = {}
    for path, module in net.model.named_modules():
        if isinstance(module, IntegerConv):
            found[path] = module.largest, module.sums
        if isinstance(module, IntegerNeuron):
            found[path] = module.bound, module.most_steps
        if isinstance(module, IntegerReadout):
            found[path] = module.largest
    return found


@pytest.mark.parametrize("name", ["plain", "residual", "read behind", "ends in ReLU"])
def test_nothing_is_larger_than_its_bound(name: str) -> None:
    net, images = quantized(name)
    seen: dict[str, int] = {}

    class Largest(snm.Observer):
        def asks(self, fire: Any) -> tuple[Any, ...]:  # noqa: ARG002
            return ("drive",)

        def see(self, launch: Any) -> None:
            drive = launch.drive + (0 if launch.residual is None else launch.residual)
            seen[launch.fire.path] = int(drive.abs().max())

    far = torch.where(images > 0, 1e9, -1e9)
    net.simulation(far, timesteps=8, observers=[Largest()]).answer()
    for path, neuron in net.layers.items():
        assert isinstance(neuron, IntegerNeuron)
        assert 0 < seen[path] <= neuron.bound


@pytest.mark.parametrize("name", ["plain", "residual", "read behind"])
def test_bounds_follow_weights_that_are_loaded(name: str) -> None:
    net, images = quantized(name)
    other = copy.deepcopy(net)
    for module in other.modules():
        if isinstance(module, IntegerConv):
            module.weight.clamp_(-3, 3)
        if isinstance(module, IntegerScale):
            module.factor.clamp_(-3, 3)
    before, small = bounds_of(net), other.state_dict()
    large = {name: value.clone() for name, value in net.state_dict().items()}
    nn.Sequential(net).load_state_dict({f"0.{name}": value for name, value in small.items()})
    assert bounds_of(net) == bounds_of(rebuilt(other)) != before
    assert most_steps(net.program, net.model) > most_steps(other.program, other.model)
    net.load_state_dict(large)
    assert bounds_of(net) == before
    assert net.digest(images, timesteps=4) == quantized(name)[0].digest(images, timesteps=4)


def test_weights_that_could_overflow_are_not_loaded() -> None:
    net, _ = quantized("residual")
    state = net.state_dict()
    scale = next(name for name in state if name.endswith("factor"))
    state[scale] = torch.full_like(state[scale], 2**31 - 1)
    with pytest.raises(
        ValueError, match=r"cannot load such weights: .* could leave int32 within 8"
    ):
        net.load_state_dict(state)


Change = Callable[[dict[str, Any]], None]


def rebuilt(net: snm.SpikingNetwork, change: Change = lambda _: None) -> snm.SpikingNetwork:
    """A network that is built from what a file would hold, with a change."""
    graph, tensors = blueprint.blueprint_of(net)
    graph = json.loads(json.dumps(graph))
    change(graph)
    return blueprint.build(graph, tensors, torch.device("cpu"))


@pytest.mark.parametrize("name", ["plain", "residual", "read behind", "conv1d"])
def test_what_a_file_says_of_bounds_is_not_believed(name: str) -> None:
    net, _ = quantized(name)

    def lie(graph: dict[str, Any]) -> None:
        for module in graph["modules"].values():
            arguments = module["arguments"]
            arguments |= {"bound": 0} if "bound" in arguments else {}
            arguments |= {"largest": 1} if "largest" in arguments else {}

    assert bounds_of(rebuilt(net, lie)) == bounds_of(net)


def changed(net: snm.SpikingNetwork, function: Any, *reads: Any) -> snm.SpikingNetwork:
    """A network whose first layer of spikes reads what a function makes of its spikes."""
    program = net.program
    place, layer = next(
        (place, step)
        for place, step in enumerate(program.temporal)
        if isinstance(step, Call)
        and isinstance(net.model.get_submodule(str(step.target)), IntegerConv)
    )
    [x] = layer.args
    new = Call("new", "function", function, (x, *(x if read == "x" else read for read in reads)))
    steps = list(program.temporal)
    steps[place] = Call(layer.name, layer.kind, layer.target, (Value("new"),))
    steps.insert(place, new)
    frees = {**program.frees, "new": (), layer.name: ("new",)}
    made = copy.copy(net)
    made.program = replace(program, temporal=tuple(steps), frees=frees)
    return made


@pytest.mark.parametrize(
    ("function", "reads", "message"),
    [
        (torch.mul, (1000,), "new: mul: it has no integer form"),
        (torch.add, (1000,), "new: add: it has no integer form"),
        (operator.add, (1000,), "new: add: it has no integer form"),
        (operator.sub, ("x",), "new: sub: it has no integer form"),
        (torch.cumsum, (2,), "new: cumsum: it has no integer form"),
        (nn.functional.pad, ([1, 1], "constant", 1000), "new: pad: it has no integer form"),
    ],
)
def test_operations_without_a_bound_are_not_loaded(
    function: Any, reads: tuple[Any, ...], message: str
) -> None:
    net, _ = quantized("conv1d")
    forged = changed(net, function, *reads)
    with pytest.raises(blueprint.Refusal, match=f"^{message}"):
        rebuilt(forged)
    same = changed(net, operator.add, "x")
    assert rebuilt(same).program == same.program


@pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")
def test_spikes_whose_sums_int8_cannot_hold_are_not_loaded() -> None:
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(36, 5)]
    images = torch.rand(8, 2, 11, 11)
    model = nn.Sequential(*layers, nn.ReLU(), nn.Linear(5, 3)).eval()
    net = snm.quantize(snm.convert(model, images, norm="channel"), images)
    [path] = (p for p, m in net.model.named_modules() if isinstance(m, IntegerSumPool))

    def enlarge(graph: dict[str, Any]) -> None:
        graph["modules"][path]["arguments"]["size"] = [16, 8]

    with pytest.raises(blueprint.Refusal, match=f"^{path}: IntegerSumPool: .* could leave int8"):
        rebuilt(net, enlarge)


def test_a_layer_that_is_told_of_more_steps_is_not_loaded() -> None:
    net, _ = quantized("conv1d")
    program = net.program
    [place] = (i for i, step in enumerate(program.static) if getattr(step, "target", None) == "0")
    steps = list(program.static)
    call = steps[place]
    steps[place] = replace(call, kwargs={"steps": 3_000_000})
    forged = copy.copy(net)
    forged.program = replace(program, static=tuple(steps))
    with pytest.raises(blueprint.Refusal, match="takes no such arguments"):
        rebuilt(forged)


@pytest.mark.parametrize("threshold", [0, -5, 2**24])
def test_thresholds_out_of_range_are_not_loaded(threshold: int) -> None:
    net, _ = quantized("plain")
    state = net.state_dict()
    name = next(name for name in state if name.endswith("threshold"))
    state[name] = torch.full_like(state[name], threshold)
    with pytest.raises(ValueError, match="neurons: a threshold is out of range"):
        net.load_state_dict(state)


def test_pixels_without_a_step_are_not_loaded() -> None:
    net, _ = quantized("plain")
    state = net.state_dict()
    name = next(name for name in state if name.endswith("step"))
    state[name] = torch.zeros_like(state[name])
    with pytest.raises(ValueError, match="Pixels: its step must be above 0"):
        net.load_state_dict(state)


@pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")
def test_networks_whose_weights_were_refused_run_no_step() -> None:
    layers = [nn.Linear(4, 6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 6)]
    images = torch.rand(32, 4)
    model = nn.Sequential(*layers, nn.ReLU(), nn.Linear(6, 3)).eval()
    net = snm.quantize(snm.convert(model, images, norm="channel"), images)
    state = net.state_dict()
    for name, value in state.items():
        if value.dtype == torch.int8:
            state[name] = torch.full_like(value, 127)
        elif name.endswith("bias"):
            state[name] = torch.full_like(value, 2**31 - 1)
    with pytest.raises(ValueError, match="cannot load such weights"):
        net.load_state_dict(state)
    with pytest.raises(ValueError, match="timesteps must be at most 0"):
        net(images, timesteps=1)


def test_bounds_are_exact_however_large() -> None:
    layer = IntegerLinear(torch.full((1, 256), 127, dtype=torch.int8))
    layer.renew_largest(2**50 - 1)
    assert layer.sums == 256 * 127 * (2**50 - 1)

"""What is recorded is what neurons did, and recording changes nothing."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import snm
from snm import Recording, SNMRule, SpikingNetwork
from support.naive import naive_thresholds, simulate_naively
from support.networks import NETWORKS, exact_network

T = 11
RULES = {
    "snm": snm.preset("snm"),
    "snm-zero": snm.preset("snm-zero"),
    "st-bif": snm.preset("st-bif"),
    "burst": snm.preset("burst"),
    "both signs": SNMRule(v_init=0.25, negative_threshold=0.5, count_min=-3, count_max=4),
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning"),
    # Of neurons whose spikes are bounded.
    pytest.mark.filterwarnings("ignore:SpikingNetwork. neurons send no more than"),
]


def converted(name: str, **options: Any) -> tuple[SpikingNetwork, Tensor]:
    model, calibration, images = exact_network(name)
    return snm.convert(model, calibration, **options), images


def residual_net(dtype: torch.dtype = torch.float32) -> tuple[SpikingNetwork, Tensor]:
    """A network with residuals and the biases that tuning adds, of weights that are not exact."""
    torch.manual_seed(0)
    model = NETWORKS["residual"][0]().eval()
    net = snm.convert(model, torch.rand(16, 2, 8, 8), preset="snm-zero", chunk_steps=4)
    for neuron in net.layers.values():
        neuron.bias = 0.1 * torch.randn(neuron.threshold.shape)
    return net.to(dtype), torch.rand(3, 2, 8, 8).to(dtype)


def stepped(net: SpikingNetwork, images: Tensor, steps: int) -> dict[str, list[Tensor]]:
    """Membranes and memories after each step, by the layers' paths: two tensors each."""
    net.reset()
    states = []
    for _ in range(steps):
        net.step(images)
        states.append(dict(net._live.states))
    net.reset()
    return {
        fire.path: [
            torch.stack([state[fire.name].v for state in states]),
            torch.stack([state[fire.name].m for state in states]),
        ]
        for fire in net.program.neurons
    }


def assert_same(recording: Recording, other: Recording) -> None:
    assert list(recording) == list(other)
    for path, layer in recording.items():
        assert torch.equal(layer.spikes, other[path].spikes)
        assert torch.equal(layer.membrane, other[path].membrane)
        assert torch.equal(layer.memory, other[path].memory)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_model_stepped_through_time(name: str, rule: SNMRule) -> None:
    model, calibration, images = exact_network(name)
    thresholds = naive_thresholds(model, calibration, "neuron")
    naive = simulate_naively(model, images, thresholds, rule, T)
    net = snm.convert(model, calibration, preset=rule, chunk_steps=4)
    with net.record() as recording:
        net(images, timesteps=T)
    assert list(recording) == list(net.layers)
    assert recording.timesteps == T
    for layer, expected in zip(recording.values(), naive.neurons, strict=True):
        assert layer.spikes.dtype == torch.int8
        assert layer.membrane.dtype == torch.float32
        assert layer.memory.dtype == torch.int32
        assert torch.equal(layer.spikes, torch.stack(expected.spikes).to(torch.int8))
        assert torch.equal(layer.membrane, torch.stack(expected.membranes))
        assert torch.equal(layer.memory, torch.stack(expected.memories).to(torch.int32))
        assert torch.equal(layer.threshold, net.layers[layer.path].threshold)
        assert layer.rule == rule
        assert (layer.timesteps, layer.images) == (T, len(images))
        assert layer.spikes.shape == (T, len(images), *layer.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_state_of_a_network_with_residuals_and_biases(dtype: torch.dtype) -> None:
    net, images = residual_net(dtype)
    expected = stepped(net, images, T)
    # Of more images at once the layers' sums may be rounded otherwise.
    net.chunk_steps = 1
    with net.record() as recording:
        net(images, timesteps=T)
    for path, layer in recording.items():
        membrane, memory = expected[path]
        assert torch.equal(layer.membrane, membrane)
        assert torch.equal(layer.memory, memory)
        assert torch.equal(layer.spikes.cumsum(0), memory)
        assert (layer.spikes > 0).any()
    assert any((layer.spikes < 0).any() for layer in recording.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_chunk_ends_with_the_state_that_the_network_goes_on_from(dtype: torch.dtype) -> None:
    net, images = residual_net(dtype)
    with net.record() as recording:
        run = net._start(images, observers=net._observers)
        for steps in (1, 5, 3):
            run.advance(steps, None)
            for fire in net.program.neurons:
                layer = recording[fire.path]
                assert torch.equal(layer.membrane[-1], run.states[fire.name].v)
                assert torch.equal(layer.memory[-1], run.states[fire.name].m)
    assert recording.timesteps == 9


CALLS: dict[str, Callable[[SpikingNetwork, Tensor], Tensor]] = {
    "call": lambda net, images: net(images, timesteps=T),
    "read out after": lambda net, images: net(images, timesteps=T, readout_after=3),
    "anytime": lambda net, images: net.anytime(images, timesteps=T),
    "steps": lambda net, images: torch.stack([net.step(images) for _ in range(T)]),
}


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("name", ["plain", "residual", "pooled", "read twice"])
def test_no_way_of_calling_changes_anything(
    name: str, call: Callable[[SpikingNetwork, Tensor], Tensor], chunk: int
) -> None:
    net, images = converted(name, preset="snm-zero")
    with net.record() as expected:
        net(images, timesteps=T)
    net.chunk_steps = chunk
    before = call(net, images)
    net.reset()
    with net.record() as recording:
        assert torch.equal(call(net, images), before)
    assert_same(recording, expected)


@pytest.mark.parametrize("what", ["spikes", "membrane", "memory"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_answers_stay_what_they_were(
    dtype: torch.dtype, layout: torch.memory_format, what: str
) -> None:
    net, images = residual_net(dtype)
    net, images = net.to(memory_format=layout), images.to(memory_format=layout)
    before = net(images, timesteps=T)
    kept = images.clone()
    with net.record(what=what), net.record(what=what, neurons=[5, 2]):
        assert torch.equal(net(images, timesteps=T), before)
    assert torch.equal(images, kept)
    assert torch.equal(net(images, timesteps=T), before)


@pytest.mark.parametrize("name", NETWORKS)
def test_chosen_neurons_are_those_of_all(name: str) -> None:
    net, images = converted(name, preset="snm-zero", chunk_steps=4)
    chosen = [4, 0, 1, 4]
    with net.record() as everything, net.record(neurons=chosen) as recording:
        net(images, timesteps=T)
    for path, layer in recording.items():
        whole = everything[path]
        assert torch.equal(layer.spikes, whole.spikes.flatten(2)[..., chosen])
        assert torch.equal(layer.membrane, whole.membrane.flatten(2)[..., chosen])
        assert torch.equal(layer.memory, whole.memory.flatten(2)[..., chosen])
        threshold = whole.threshold.expand(whole.shape).flatten()
        assert torch.equal(layer.threshold, threshold[chosen])
        assert layer.neurons.tolist() == chosen
        assert layer.shape == whole.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", ["neuron", "channel", "layer"])
def test_chosen_neurons_with_residuals_and_biases(
    norm: str, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    torch.manual_seed(1)
    model = NETWORKS["residual"][0]().eval()
    images = torch.rand(3, 2, 8, 8)
    net = snm.convert(model, torch.rand(16, 2, 8, 8), preset="snm-half", norm=norm, chunk_steps=3)
    for neuron in net.layers.values():
        neuron.bias = 0.1 * torch.randn(neuron.threshold.shape)
    net = net.to(dtype).to(memory_format=layout)
    images = images.to(dtype, memory_format=layout)
    chosen = torch.tensor([60, 3, 17])
    with net.record() as everything, net.record(neurons=chosen) as recording:
        net(images, timesteps=T)
    for path, layer in recording.items():
        whole = everything[path]
        assert torch.equal(layer.spikes, whole.spikes.flatten(2)[..., chosen])
        assert torch.equal(layer.membrane, whole.membrane.flatten(2)[..., chosen])
        assert torch.equal(layer.memory, whole.memory.flatten(2)[..., chosen])


def test_neurons_by_path() -> None:
    net, images = converted("plain")
    first, second, third = net.layers
    with net.record([third, first], neurons={first: [7, 5]}) as recording:
        net(images, timesteps=T)
    assert list(recording) == [first, third]
    assert recording[first].spikes.shape == (T, 3, 2)
    assert recording[third].spikes.shape == (T, 3, 8)
    assert second not in recording


@pytest.mark.parametrize("asked", ["spikes", "membrane", "memory"])
def test_only_what_was_asked_for(asked: str) -> None:
    net, images = converted("plain", preset="snm-zero", chunk_steps=4)
    with net.record("2") as everything, net.record("2", what=asked) as recording:
        net(images, timesteps=T)
    layer = recording["2"]
    assert layer.what == (asked,)
    for what in ("spikes", "membrane", "memory"):
        if what == asked:
            assert torch.equal(getattr(layer, what), getattr(everything["2"], what))
        else:
            with pytest.raises(AttributeError, match=f"{what} of 2 was not recorded, only {asked}"):
                getattr(layer, what)


def held(layer: snm.LayerRecording) -> int:
    """Bytes of all the memory that the tensors of a recording keep alive."""
    tensors = [sent for _, sent in layer._spikes] + layer._membrane
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


@pytest.mark.parametrize("neurons", [None, [3, 1, 2]])
@pytest.mark.parametrize(
    ("preset", "what", "quarters"),
    [
        ("snm-zero", "spikes", 1),
        ("snm-zero", "memory", 1),
        ("snm-zero", ("spikes", "memory"), 1),
        ("snm-zero", "membrane", 16),
        ("snm-zero", ("spikes", "membrane", "memory"), 17),
        ("burst", ("spikes", "memory"), 4),
        ("burst", ("spikes", "membrane"), 20),
    ],
)
def test_what_it_takes(
    preset: str, what: tuple[str, ...], quarters: int, neurons: list[int] | None
) -> None:
    net, images = converted("plain", preset=preset, chunk_steps=4)
    with net.record("2", what=what, neurons=neurons) as recording:
        net(images, timesteps=8)
    layer = recording["2"]
    each = 3 * (4 * 8 * 8 if neurons is None else 3)
    assert layer.nbytes == held(layer) == 8 * each * quarters // 4
    # Reading it does not make it larger.
    for quantity in layer.what:
        getattr(layer, quantity)
    assert layer.nbytes == held(layer) == 8 * each * quarters // 4


def test_frames() -> None:
    net, _ = converted("residual", preset="snm-zero", encoder="frames", chunk_steps=3)
    frames = torch.rand(T, 2, 2, 8, 8, generator=torch.Generator().manual_seed(3))
    with net.record() as recording:
        net(frames, timesteps=T)
    net.chunk_steps = 1
    with net.record() as one_by_one:
        net(iter(frames))
    assert_same(recording, one_by_one)
    with net.record() as by_step:
        for frame in frames:
            net.step(frame)
    assert_same(recording, by_step)


def test_poisson() -> None:
    net, images = converted("plain", preset="snm-zero", encoder="poisson")
    images = images.clamp(0, 1)

    def call() -> Tensor:
        return net(images, timesteps=T, generator=torch.Generator().manual_seed(3))

    before = call()
    with net.record() as recording:
        assert torch.equal(call(), before)
    net.chunk_steps = 1
    with net.record() as one_by_one:
        call()
    assert_same(recording, one_by_one)


@pytest.mark.parametrize("method", ["srp", "cos"])
def test_a_first_pass_is_not_recorded(method: str) -> None:
    net, images = converted("plain", preset="if-half", chunk_steps=4)
    first_pass = snm.FirstPass(method, 5)
    before = net(images, timesteps=T, first_pass=first_pass)
    with net.record() as recording, net.record(neurons=[2, 6]) as chosen:
        assert torch.equal(net(images, timesteps=T, first_pass=first_pass), before)
    assert recording.timesteps == T
    run = net._start(images, first_pass)
    for t in range(T):
        run.advance(1, None)
        for fire in net.program.neurons:
            v, m = run.states[fire.name]
            membrane = recording[fire.path].membrane[t]
            assert torch.equal(recording[fire.path].memory[t], m)
            assert torch.equal(membrane.isnan(), v.isnan())
            assert torch.equal(membrane.nan_to_num(), v.nan_to_num())
            some = chosen[fire.path].membrane[t].nan_to_num()
            assert torch.equal(some, v.nan_to_num().flatten(1)[:, [2, 6]])


def test_a_call_takes_the_place_of_the_one_before() -> None:
    net, images = converted("plain", preset="snm-zero")
    with net.record() as expected:
        net(images[:2], timesteps=5)
    with net.record() as recording:
        net(images, timesteps=T)
        assert recording["2"].images == 3
        net(images[:2], timesteps=5)
    assert recording["2"].images == 2
    assert recording.timesteps == 5
    assert_same(recording, expected)


def test_recordings_within_recordings() -> None:
    net, images = converted("plain", preset="snm-zero")
    with net.record() as expected:
        net(images, timesteps=T)
    with net.record() as outer:
        with net.record("2", what="spikes") as inner:
            net(images, timesteps=T)
        assert_same(outer, expected)
        net(images[:1], timesteps=2)
    assert outer.timesteps == 2
    assert inner.timesteps == T
    assert torch.equal(inner["2"].spikes, expected["2"].spikes)


def test_nothing_is_recorded_behind_it() -> None:
    net, images = converted("plain")
    with net.record() as recording:
        net(images, timesteps=3)
    net(images, timesteps=5)
    assert recording.timesteps == 3
    with pytest.raises(TypeError, match="timesteps"), net.record():
        net(images, timesteps="many")
    assert not net._observers


def test_a_recording_can_be_saved(tmp_path: Path) -> None:
    net, images = converted("plain", preset="snm-zero")
    with net.record() as recording:
        net(images, timesteps=3)
    torch.save(recording, tmp_path / "recording.pt")
    assert_same(torch.load(tmp_path / "recording.pt", weights_only=False), recording)


def test_steps_go_on() -> None:
    net, images = converted("residual", preset="snm-zero")
    with net.record() as expected, net.record(neurons=[3]) as chosen:
        net(images, timesteps=T)
    for _ in range(4):
        net.step(images)
    with net.record() as recording, net.record(neurons=[3]) as one:
        for _ in range(T - 4):
            net.step(images)
    assert recording.timesteps == T - 4
    for path, layer in recording.items():
        assert torch.equal(layer.spikes, expected[path].spikes[4:])
        assert torch.equal(layer.membrane, expected[path].membrane[4:])
        assert torch.equal(layer.memory, expected[path].memory[4:])
        assert torch.equal(one[path].memory, chosen[path].memory[4:])
        assert torch.equal(one[path].membrane, chosen[path].membrane[4:])
    net.step(images)
    assert recording.timesteps == T - 4


def test_a_reset_and_a_call_start_afresh() -> None:
    net, images = converted("plain")
    with net.record() as recording:
        net.step(images)
        net.step(images)
        assert recording.timesteps == 2
        net.reset()
        net.step(images)
        assert recording.timesteps == 1
        net(images, timesteps=3)
        assert recording.timesteps == 3
        # The simulation that steps go on with is another than the call's.
        net.step(images)
        assert recording.timesteps == 1
        assert torch.equal(recording["2"].memory[0], net._live.states[_name(net, "2")].m)


def _name(net: SpikingNetwork, path: str) -> str:
    return next(fire.name for fire in net.program.neurons if fire.path == path)


def test_only_chosen_neurons_are_run_again_and_for_membranes_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, images = converted("plain", chunk_steps=T)
    driven = []

    def spy(drive: Tensor, *args: Any, **kwargs: Any) -> Any:
        driven.append((drive.numel(), drive.stride(0)))
        return run(drive, *args, **kwargs)

    run = snm.network.recording.snm
    monkeypatch.setattr(snm.network.recording, "snm", spy)
    with net.record(what=("spikes", "memory"), neurons=[1, 5]):
        net(images, timesteps=T)
    assert driven == [], "spikes are those of the simulation itself"
    with net.record(what="membrane", neurons=[1, 5]):
        net(images, timesteps=T)
    # The first layer's drive is constant in time, and gathered once.
    assert [count for count, _ in driven] == [3 * 2] * 3 * T
    assert [stride == 0 for _, stride in driven] == [True] * T + [False] * 2 * T


def test_a_compiled_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    images = torch.rand(2, 4)
    net = snm.convert(model, torch.rand(32, 4), preset="snm-zero")
    with net.record() as expected:
        logits = net(images, timesteps=4)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager")
    with net.record() as recording:
        assert torch.equal(compiled(images, timesteps=4), logits)
    assert_same(recording, expected)
    torch._dynamo.reset()
    whole = torch.compile(net, backend="eager", fullgraph=True)
    with (
        net.record(),
        pytest.raises(torch._dynamo.exc.Unsupported, match="recorded cannot be one graph"),
    ):
        whole(images, timesteps=4)


def test_calls_that_are_not_recorded_are_refused() -> None:
    net, images = converted("plain")
    with net.record():
        with pytest.raises(RuntimeError, match="until is not recorded"):
            net.until(images, 0.9, max_steps=4)
        with pytest.raises(RuntimeError, match="a capture is not recorded"):
            net.capture(images, timesteps=4)
    net.until(images, 0.9, max_steps=4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"paths": "3"}, ValueError, "paths must be of layers of neurons, got '3'; there are 2, 5"),
        ({"paths": ["2", "relu"]}, ValueError, "got 'relu'; there are 2, 5, 10"),
        ({"paths": []}, ValueError, "paths must hold at least one"),
        ({"neurons": {"3": [0]}}, ValueError, "neurons must be of layers of neurons, got '3'"),
        ({"paths": "2", "neurons": {"5": [0]}}, ValueError, "got '5'; there are 2$"),
        ({"what": "spike"}, ValueError, "what must be some of 'spikes', 'membrane', 'memory'"),
        ({"what": ["spikes", "v"]}, ValueError, "what must be some of"),
        ({"what": []}, ValueError, "what must be some of"),
        ({"neurons": [-1]}, ValueError, "neurons must be one list of at least one index >= 0"),
        ({"neurons": []}, ValueError, "neurons must be one list"),
        ({"neurons": [[0, 1]]}, ValueError, "neurons must be one list"),
        ({"neurons": torch.ones(8, dtype=torch.bool)}, TypeError, "got torch.bool"),
        ({"neurons": [0.5]}, TypeError, "neurons must be integer indices"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    net, _ = converted("plain")
    with pytest.raises(error, match=message), net.record(**arguments):
        pass
    assert not net._observers


def test_an_index_too_large_is_refused_once_the_size_is_known() -> None:
    net, images = converted("plain")
    with (
        net.record("5", neurons=[0, 96]),
        pytest.raises(ValueError, match="neurons of 5 must be 0 to 95, got 96"),
    ):
        net(images, timesteps=3)
    assert not net._observers


def test_nothing_to_read() -> None:
    net, images = converted("plain")
    with net.record("2") as recording:
        assert recording.timesteps == 0
        for name in ("spikes", "membrane", "memory", "images", "shape", "threshold", "rule"):
            with pytest.raises(RuntimeError, match="nothing of 2 was recorded; call the network"):
                getattr(recording["2"], name)
        net(images, timesteps=3)
    with pytest.raises(KeyError, match="'5' was not recorded, only 2"):
        recording["5"]
    assert recording.get("5") is None


def test_the_memory_of_bounded_counts() -> None:
    net, images = converted("plain", preset=RULES["both signs"])
    with net.record(what="memory") as recording:
        net(images, timesteps=40)
    memories = [layer.memory for layer in recording.values()]
    assert min(int(memory.min()) for memory in memories) >= -3
    assert max(int(memory.max()) for memory in memories) == 4
    assert memories[0].unique().numel() > 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_of_a_recorded_network_is_not_recorded(copied: Callable[..., Any]) -> None:
    net, images = converted("plain")
    with net.record(what="spikes") as recording:
        net(images, timesteps=T)
        spikes = {path: layer.spikes for path, layer in recording.items()}
        copied(net)(images[:1], timesteps=2)
        snm.tune(net, images, timesteps=2, budget=0.1)
    assert recording.timesteps == T
    assert all(torch.equal(recording[path].spikes, sent) for path, sent in spikes.items())


def test_a_recording_goes_with_its_last_reference() -> None:
    net, images = converted("plain")
    gc.disable()
    try:
        with net.record() as recording:
            net(images, timesteps=T)
        gone = weakref.ref(recording)
        del recording
        assert gone() is None
    finally:
        gc.enable()

"""Layers of floating point networks that are computed spike by spike do what dense ones do."""

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import snm
from snm.conversion import faster
from snm.network.events import EventRun, plan_of, readers_of
from snm.network.fused import Waiting
from snm.network.relu import relu_pass
from snm.network.tally import Tally
from support.networks import exact_network

T = 12
READERS = {
    "plain": ["model_4", "model_8"],
    "residual": [
        "model_layers_0_conv1",
        "model_layers_0_conv2",
        "model_layers_1_conv1",
        "model_layers_1_conv2",
        "model_layers_1_downsample_0",
    ],
    "pre-activation": ["model_conv1", "model_conv2"],
    "branches": ["model_conv_1"],
    "mutated identity": ["model_conv1", "model_conv2"],
    "shared convolution": ["model_conv_1"],
    "pooled": ["model_last"],
    "ends in ReLU": ["model_3"],
    "read twice": ["model_second"],
    "read behind": ["model_second"],
    "sized": ["conv2d_1", "conv2d_2"],
    "conv1d": ["model_4"],
}
"""The layers of networks that read spikes, by the names of their steps."""


def converted(name: str, **options: Any) -> tuple[snm.SpikingNetwork, Tensor]:
    """The network of that name, and images for it."""
    model, calibration, images = exact_network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snm.DeadNeuronWarning)
        net = snm.convert(model, calibration, **{"norm": "channel", "preset": "snm-zero"} | options)
    return net, images


def all_by_events(net: snm.SpikingNetwork) -> snm.SpikingNetwork:
    """A copy whose layers are computed spike by spike, as many as can be."""
    made = copy.deepcopy(net)
    made.events = tuple(readers_of(net.program, net.model))
    assert made.events
    return made


def spikes_of(net: snm.SpikingNetwork, *args: Any, **kwargs: Any) -> list[Tensor]:
    with net.record(what="spikes") as recording:
        net(*args, **kwargs)
    return [layer.spikes for layer in recording.values()]


def test_layers_that_read_spikes() -> None:
    found = {}
    for name in READERS:
        net, _ = converted(name)
        found[name] = list(readers_of(net.program, net.model))
    assert found == READERS


# Sums of these networks are exact in any order.
@pytest.mark.parametrize(
    "options", [{}, {"norm": "layer"}, {"preset": "snm"}, {"preset": "burst"}], ids=str
)
@pytest.mark.parametrize("name", READERS)
def test_the_same_spikes_as_of_dense_layers(name: str, options: dict[str, str]) -> None:
    net, images = converted(name, **options)
    events = all_by_events(net)
    digest = net.digest(images, timesteps=T)
    answer = net(images, timesteps=T)
    for chunk_steps in (1, 5, None):
        events.chunk_steps = chunk_steps
        assert events.digest(images, timesteps=T) == digest
        assert torch.allclose(events(images, timesteps=T), answer, rtol=1e-6, atol=1e-6)
    turned = images.transpose(1, -1).contiguous().transpose(1, -1)
    assert events.digest(turned, timesteps=T) == digest


def test_thresholds_of_neurons_that_a_linear_layer_reads_may_differ() -> None:
    net, images = converted("plain", norm="neuron")
    events = all_by_events(net)
    assert events.events == ("model_8",)
    assert events.digest(images, timesteps=T) == net.digest(images, timesteps=T)


def inexact() -> tuple[snm.SpikingNetwork, Tensor]:
    """A network whose sums round, some of whose layers have biases twice."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, 70, 3, groups=1), nn.ReLU()),
        *(nn.AvgPool2d(2), nn.Conv2d(70, 6, 3, 2, 1, bias=False), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(54, 33), nn.ReLU(), nn.Linear(33, 5)),
    ).eval()
    images = torch.rand(24, 3, 12, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snm.DeadNeuronWarning)
        net = snm.convert(model, images, preset="snm-zero", norm="channel")
    for neuron in list(net.layers.values())[1:]:
        neuron.bias = neuron.threshold.clone().where(~neuron.silent, 0.0) * 0.05
    return all_by_events(net), images[:4]


def test_rounding_depends_on_nothing_but_the_spikes() -> None:
    net, images = inexact()
    assert len(net.events) == 3
    digest, spikes = net.digest(images, timesteps=T), spikes_of(net, images, timesteps=T)
    assert any(bool((sent < 0).any()) for sent in spikes)
    threads = torch.get_num_threads()
    for chunk_steps, number in ((1, 1), (5, 2), (None, 3)):
        net.chunk_steps = chunk_steps
        torch.set_num_threads(number)
        assert net.digest(images, timesteps=T) == digest
    torch.set_num_threads(threads)
    dense = copy.deepcopy(net)
    dense.events = ()
    assert torch.allclose(net(images, timesteps=64), dense(images, timesteps=64), atol=0.02)


def test_all_ways_to_simulate_agree() -> None:
    net, images = inexact()
    answer = net(images, timesteps=T)
    by_step = net.anytime(images, timesteps=T)
    assert torch.allclose(by_step[-1], answer, atol=1e-6)
    for expected in by_step:
        assert torch.allclose(net.step(images), expected, atol=1e-6)
    net.reset()
    found = net.until(images, 0.9, max_steps=T)
    assert found.logits.shape == answer.shape
    simulation = net.simulation(images, timesteps=T)
    assert torch.equal(simulation.answer(), answer)
    assert isinstance(simulation.run, EventRun)
    started = net(images, timesteps=T, first_pass=snm.FirstPass("srp", 4))
    assert started.isfinite().all()


def test_recordings_and_observers_see_the_same() -> None:
    net, images = inexact()
    net.chunk_steps = 5
    answer, spikes = net(images, timesteps=T), spikes_of(net, images, timesteps=T)
    # Membranes are made of what drives neurons, in launches of their own.
    with net.record() as recording:
        assert torch.equal(net(images, timesteps=T), answer)
    tally = Tally()
    assert torch.equal(net.simulation(images, timesteps=T, observers=[tally]).answer(), answer)
    for sent, (path, layer) in zip(spikes, recording.items(), strict=True):
        assert torch.equal(layer.spikes, sent)
        assert torch.equal(layer.memory[-1], tally.states[path].m)
        assert torch.equal(layer.membrane[-1], tally.states[path].v)
        assert torch.equal(tally.negative[path], (sent < 0).sum(0, dtype=torch.int32))


@pytest.mark.parametrize("encoder", ["frames", "poisson"])
def test_images_that_change(encoder: str) -> None:
    net, images = converted("plain", encoder=encoder)
    events = all_by_events(net)
    given: dict[str, Any] = {}
    if encoder == "frames":
        images = torch.stack([images * (t % 3) / 2 for t in range(T)])
    else:
        images, given = images.clamp(0, 1), {"timesteps": T}

    def digest(of: snm.SpikingNetwork) -> str:
        drawn = torch.Generator().manual_seed(0) if encoder == "poisson" else None
        return of.digest(images, generator=drawn, **given)

    assert digest(events) == digest(net)


def test_counts() -> None:
    net, images = converted("ends in ReLU", readout="count")
    assert torch.equal(all_by_events(net)(images, timesteps=T), net(images, timesteps=T))


def runs(net: snm.SpikingNetwork, images: Tensor) -> type:
    simulation = net.simulation(images, timesteps=2)
    simulation.answer()
    return type(simulation.run)


def test_elsewhere_layers_are_dense() -> None:
    net, images = inexact()
    assert runs(net, images) is EventRun
    other = copy.deepcopy(net).to(torch.bfloat16)
    assert runs(other, images.bfloat16()) is not EventRun
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    dense = copy.deepcopy(net)
    dense.events = ()
    assert torch.equal(compiled(images, timesteps=4), dense(images, timesteps=4))


def test_what_is_written_is_used() -> None:
    net, images = inexact()
    net(images, timesteps=2)
    plan = net._plan
    net(images, timesteps=2)
    assert net._plan is plan
    dense = copy.deepcopy(net)
    dense.events = ()
    with torch.no_grad():
        for each in (net, dense):
            each.model.get_submodule("2").weight *= 2
            next(iter(each.layers.values())).threshold *= 2
    assert torch.allclose(net(images, timesteps=64), dense(images, timesteps=64), atol=0.02)
    assert net._plan is not plan


def test_hooks_are_called() -> None:
    net, images = converted("residual")
    events = all_by_events(net)
    digest = net.digest(images, timesteps=T)
    called = []
    conv = events.model.get_submodule("layers.0.conv2")
    neuron = events.layers["layers.0.relu"]
    for module in (conv, neuron):
        module.register_forward_hook(lambda module, *_: called.append(type(module)))
    assert events.digest(images, timesteps=T) == digest
    assert set(called) == {nn.Conv2d, snm.nn.SNMNeuron}


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies_are_the_same(way: Callable[[Any], Any]) -> None:
    net, images = inexact()
    net(images, timesteps=2)
    same = way(net)
    assert same.events == net.events
    assert same.digest(images, timesteps=T) == net.digest(images, timesteps=T)


def test_network_comes_back(tmp_path: Path) -> None:
    net, images = inexact()
    snm.save(net, tmp_path / "net")
    same = snm.load(tmp_path / "net")
    assert same.events == net.events
    assert same.digest(images, timesteps=T) == net.digest(images, timesteps=T)


def test_relu_network_and_report_are_those_of_the_network_before(tmp_path: Path) -> None:
    net, images = converted("residual")
    model = exact_network("residual")[0]
    events = all_by_events(net)
    for ours, theirs in zip(relu_pass(events, images), relu_pass(net, images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    given = {"timesteps": T, "model": model, "labels": torch.tensor([0, 1, 2])}
    found, expected = snm.report(events, images, **given), snm.report(net, images, **given)
    assert found.layers == expected.layers
    assert found.macs == expected.macs
    assert found.energy == expected.energy
    assert expected.events == {}
    assert list(found.events) == [
        *("layers.0.conv1", "layers.0.conv2"),
        *("layers.1.conv1", "layers.1.conv2", "layers.1.downsample.0"),
    ]
    assert all(0 < share < 1 for share in found.events.values())
    assert "by events" in str(found)
    found.save(tmp_path / "report.json")
    again = snm.Report.from_json((tmp_path / "report.json").read_text())
    assert again.events == found.events


def test_other_tools_take_the_network() -> None:
    net, images = inexact()
    integers = snm.quantize(net, images)
    assert integers.events == ()
    tuned = snm.tune(net, images, 4).net
    assert tuned.events in ((), net.events)
    assert tuned(images, timesteps=4).isfinite().all()


def test_layers_wait_for_their_neurons() -> None:
    net, images = inexact()
    waited = []

    class Watched(EventRun):
        def call(self, call: Any, values: Any) -> Any:
            result = super().call(call, values)
            waited.extend([call.name] * isinstance(result, Waiting))
            return result

    plan = plan_of(net.program, net.model, net.events)
    run = Watched(plan, net.model, images)
    run.advance(3, None)
    assert waited == list(net.events)
    # Between them, nothing but spikes is sent.
    assert [fire.sends for fire in plan.program.neurons] == [False] * 4
    assert [fire.pooled for fire in plan.program.neurons] == [True] * 3 + [False]


@pytest.mark.parametrize("chosen", [True, False])
def test_the_faster_way_is_chosen(chosen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net, images = inexact()
    net.events = ()
    ways: list[Any] = []

    def times(given: dict[str, Callable[[], Any]]) -> dict[str, float]:
        ways.append({way: run() for way, run in given.items()})
        return {"events": 1.0 if chosen else 3.0, "dense": 2.0}

    monkeypatch.setattr(faster, "_times", times)
    made = snm.by_events(net, images)
    assert made.events == (tuple(readers_of(net.program, net.model)) if chosen else ())
    assert net.events == ()
    for results in ways:
        by_events, dense = results["events"].state, results["dense"].state
        assert (by_events.m - dense.m).abs().max() <= 1
        assert (by_events.m == dense.m).float().mean() > 0.99


def test_by_events_times_layers(capsys: pytest.CaptureFixture[str]) -> None:
    net, images = inexact()
    net.events = ()
    made = snm.by_events(net, images)
    assert set(made.events) <= {"model_2", "model_5", "model_8"}
    made.events = ("model_5",)
    made.print_tree()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("by events")] == ["5"]
    assert made(images, timesteps=4).shape == (4, 5)


def test_what_cannot_be_is_refused() -> None:
    net, images = inexact()
    with pytest.raises(TypeError, match=r"^by_events: net must be a SpikingNetwork, got Linear$"):
        snm.by_events(nn.Linear(1, 1), images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^by_events: net is a network of integers"):
        snm.by_events(snm.quantize(net, images), images)
    with pytest.raises(ValueError, match=r"^by_events: net must be in float32 on the CPU, got"):
        snm.by_events(copy.deepcopy(net).to(torch.bfloat16), images.bfloat16())
    per_neuron, others = converted("residual", norm="neuron")
    with pytest.raises(ValueError, match=r"^by_events: net must have layers that read spikes"):
        snm.by_events(per_neuron, others)
    with pytest.raises(TypeError, match="images must be"):
        snm.by_events(net, images.double())
    with pytest.raises(ValueError, match=r"events must be layers that read spikes, got \['2'\]"):
        plan_of(net.program, net.model, ["2"])


def test_forged_layers_are_refused(tmp_path: Path) -> None:
    net, _ = inexact()
    net.events = ("model_0",)
    with pytest.raises(ValueError, match="events must be layers that read spikes"):
        snm.save(net, tmp_path / "net")

"""A network of integers is a network like any other, and gives the same bits however it is run."""

import copy
import hashlib
import json
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

import snm
from snm.files import blueprint
from snm.network.relu import relu_logits, relu_pass
from snm.network.tally import Tally
from snm.nn.integer import (
    SILENT,
    IntegerConv,
    IntegerLinear,
    IntegerNeuron,
    IntegerReadout,
    IntegerScale,
    IntegerSumPool,
    Pixels,
)
from snm.reports.count.synapses import wiring
from snm.reports.membrane import threshold_of
from snm_kernels import spike_conv
from support.networks import exact_images, exact_network

T = 12
NAMES = ["plain", "residual", "shared convolution", "ends in ReLU", "read twice", "sized", "conv1d"]
"""Of the networks that can be quantized."""


def quantized(name: str, **options: Any) -> tuple[snm.SpikingNetwork, Tensor]:
    """The network of that name in integers, and images for it."""
    model, calibration, images = exact_network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snm.DeadNeuronWarning)
        net = snm.convert(model, calibration, **{"norm": "channel", "preset": "snm-zero"} | options)
    return snm.quantize(net, calibration), images


def paths_of(net: snm.SpikingNetwork) -> dict[str, str]:
    return {path: m.path for path, m in net.named_modules() if isinstance(m, IntegerConv)}


def set_paths(net: snm.SpikingNetwork, path: Any) -> None:
    for module in net.modules():
        if isinstance(module, IntegerConv):
            module.path = path


def spikes_of(net: snm.SpikingNetwork, *args: Any, **kwargs: Any) -> list[Tensor]:
    with net.record(what="spikes") as recording:
        net(*args, **kwargs)
    return [layer.spikes for layer in recording.values()]


@pytest.mark.parametrize("preset", ["snm-zero", "snm", "if-half", "burst"])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_however_it_is_run(name: str, preset: str) -> None:
    net, images = quantized(name, preset=preset)
    digest, answer = net.digest(images, timesteps=T), net(images, timesteps=T)
    for path in ("events", "dense"):
        set_paths(net, path)
        for chunk_steps in (1, 5, T, None):
            net.chunk_steps = chunk_steps
            assert net.digest(images, timesteps=T) == digest
            assert torch.equal(net(images, timesteps=T), answer)
        for image, own in zip(images, answer, strict=True):
            assert torch.equal(net(image[None], timesteps=T)[0], own)
        threads = torch.get_num_threads()
        torch.set_num_threads(3)
        assert net.digest(images, timesteps=T) == digest
        torch.set_num_threads(threads)
        turned = images.transpose(1, -1).contiguous().transpose(1, -1)
        assert net.digest(turned, timesteps=T) == digest


@pytest.mark.parametrize("name", NAMES)
def test_all_ways_to_simulate_agree(name: str) -> None:
    net, images = quantized(name)
    answer = net(images, timesteps=T)
    by_step = net.anytime(images, timesteps=T)
    assert torch.equal(by_step[-1], answer)
    assert torch.equal(by_step[4], net(images, timesteps=5))
    for expected in by_step:
        assert torch.equal(net.step(images), expected)
    net.reset()
    assert torch.equal(net.step(images), by_step[0])
    found = net.until(images, 0.6, max_steps=T)
    for image, steps in enumerate(found.steps.tolist()):
        assert torch.equal(found.logits[image], by_step[steps - 1, image])
    simulation = net.simulation(images, timesteps=T)
    assert torch.equal(torch.stack(list(simulation.answers())), by_step)
    net.chunk_steps = 5
    assert [run.steps for run in net.simulation(images, timesteps=T).chunks()] == [5, 10, 12]
    late = net(images, timesteps=T, readout_after=5)
    assert torch.allclose(late, (T * answer - 5 * by_step[4]) / (T - 5), atol=1e-4)


@pytest.mark.parametrize("fit", [1, 2, 3])
def test_batches_are_cut(fit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, images = quantized("plain")
    images = images[:1].repeat(5, *[1] * (images.dim() - 1)) * torch.arange(5).view(5, 1, 1, 1)
    whole = net(images, timesteps=T)
    late = net(images, timesteps=T, readout_after=3)
    sizes = []
    start = snm.SpikingNetwork._start

    def counted(self: snm.SpikingNetwork, some: Tensor, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(some))
        return start(self, some, *args, **kwargs)

    monkeypatch.setattr(snm.SpikingNetwork, "_start", counted)
    monkeypatch.setattr("snm.network.spiking.images_with_all_steps", lambda *_: fit)
    assert torch.equal(net(images, timesteps=T), whole)
    assert sizes == {1: [1] * 5, 2: [2, 2, 1], 3: [3, 2]}[fit]
    assert torch.equal(net(images, timesteps=T, readout_after=3), late)
    sizes.clear()
    # Who watches sees the whole batch, and who says how many steps there are at once gets them.
    spikes_of(net, images, timesteps=T)
    net.chunk_steps = 2
    net(images, timesteps=T)
    net.chunk_steps = None
    # So do hooks of users.
    hook = next(iter(net.layers.values())).register_forward_hook(lambda *_: None)
    net(images, timesteps=T)
    hook.remove()
    assert sizes == [5, 5, 5]
    with pytest.raises(ValueError, match="NaN"):
        net(images / 0, timesteps=T)


@pytest.mark.parametrize("name", NAMES)
def test_recordings_and_observers(name: str) -> None:
    net, images = quantized(name)
    net.chunk_steps = 5
    answer, spikes = net(images, timesteps=T), spikes_of(net, images, timesteps=T)
    with net.record() as recording:
        assert torch.equal(net(images, timesteps=T), answer)
    tally = Tally()
    simulation = net.simulation(images, timesteps=T, observers=[tally])
    assert torch.equal(simulation.answer(), answer)
    for sent, (path, layer) in zip(spikes, recording.items(), strict=True):
        assert torch.equal(layer.spikes, sent)
        assert torch.equal(layer.memory[-1], sent.sum(0, dtype=torch.int32))
        assert torch.equal(layer.memory[-1], tally.states[path].m)
        assert torch.equal(layer.membrane[-1], tally.states[path].v)
        assert layer.membrane.dtype == layer.threshold.dtype == torch.int32
        assert torch.equal(tally.negative[path], (sent < 0).sum(0, dtype=torch.int32))
    path = next(iter(net.layers))
    with net.record(path, neurons=[3, 0]) as some:
        net(images, timesteps=T)
    everything = recording[path].membrane.flatten(2)
    assert torch.equal(some[path].membrane, everything[..., [3, 0]])


def test_thresholds_of_recorded_silent_neurons_are_infinite() -> None:
    net, images = quantized("residual")
    path, neuron = next((p, n) for p, n in net.layers.items() if bool(n.silent.any()))
    place = int(neuron.silent.flatten().nonzero()[0]) * 16
    with net.record(path, neurons=[place]) as recording:
        net(images, timesteps=T)
    assert int(recording[path].threshold) == SILENT
    assert threshold_of(recording[path], 0) == float("inf")


def test_stops_are_calibrated() -> None:
    net, images = quantized("plain")
    many = exact_images(400)
    stop = snm.calibrate_stop(net, exact_network("plain")[0], many, agreement=0.5, max_steps=8)
    by_step = net.anytime(images, timesteps=8)
    found = net.until(images, stop)
    for image, steps in enumerate(found.steps.tolist()):
        assert torch.equal(found.logits[image], by_step[steps - 1, image])


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies_are_the_same(way: Callable[[Any], Any]) -> None:
    net, images = quantized("residual")
    net(images, timesteps=2)
    same = way(net)
    assert paths_of(same) == paths_of(net)
    assert same.digest(images, timesteps=T) == net.digest(images, timesteps=T)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_another_dtype(dtype: torch.dtype) -> None:
    net, images = quantized("residual")
    digest, answer = net.digest(images, timesteps=T), net(images, timesteps=T)
    net.to(dtype)
    # These images are exact in any dtype.
    assert net.digest(images.to(dtype), timesteps=T) == digest
    assert torch.equal(net(images.to(dtype), timesteps=T), answer)
    with pytest.raises(TypeError, match="images must be"):
        net(images, timesteps=T)
    with pytest.raises(TypeError, match="must be one of float32, float16, bfloat16"):
        net.double()


@pytest.mark.parametrize("name", ["plain", "conv1d"])
def test_frames(name: str) -> None:
    net, images = quantized(name, encoder="frames")
    frames = torch.stack([images * (t % 3) / 2 for t in range(T)])
    digest, answer = net.digest(frames), net(frames)
    for chunk_steps in (1, 5):
        net.chunk_steps = chunk_steps
        assert net.digest(frames) == digest
        assert torch.equal(net(iter(frames)), answer)
    for frame in frames:
        last = net.step(frame)
    assert torch.equal(last, answer)


@pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")
def test_poisson() -> None:
    model, calibration, images = exact_network("plain")
    calibration, images = calibration.clamp(0, 1), images.clamp(0, 1)
    net = snm.convert(model, calibration, norm="channel", encoder="poisson")
    integers = snm.quantize(net, calibration)

    def drawn() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    digest = integers.digest(images, timesteps=64, generator=drawn())
    integers.chunk_steps = 7
    assert integers.digest(images, timesteps=64, generator=drawn()) == digest
    expected = net(images, timesteps=64, generator=drawn())
    found = integers(images, timesteps=64, generator=drawn())
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("name", ["ends in ReLU", "plain"])
def test_counts(name: str) -> None:
    net, images = quantized(name, readout="count")
    counts = net(images, timesteps=T)
    assert counts.dtype == torch.int32
    assert torch.equal(counts, spikes_of(net, images, timesteps=T)[-1].sum(0, dtype=torch.int32))
    assert torch.equal(net.anytime(images, timesteps=T)[-1], counts)


@pytest.mark.parametrize(
    ("name", "backend"), [("plain", "eager"), ("residual", "eager"), ("plain", "inductor")]
)
def test_one_graph(name: str, backend: str) -> None:
    net, images = quantized(name)
    set_paths(net, "dense")
    expected = net(images, timesteps=4)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    for _ in range(2):
        assert torch.equal(compiled(images, timesteps=4), expected)


def test_hooks_are_called() -> None:
    net, images = quantized("residual")
    answer = net(images, timesteps=T)
    called = []
    conv = net.model.get_submodule("layers.0.conv1")
    for module in (conv, net.layers["layers.0.relu_1"]):
        module.register_forward_hook(lambda module, *_: called.append(type(module)))
    assert torch.equal(net(images, timesteps=T), answer)
    assert called == [IntegerConv, IntegerNeuron]


def test_what_takes_floating_point_networks_only() -> None:
    net, images = quantized("plain")
    model = exact_network("plain")[0]
    for method in ("srp", "cos"):
        with pytest.raises(ValueError, match="first_pass takes a floating point network, got one"):
            net(images, timesteps=4, first_pass=snm.FirstPass(method, 4))
    with pytest.raises(ValueError, match="first_pass takes a floating point network, got one"):
        net.until(images, 0.9, max_steps=4, first_pass=snm.FirstPass("srp", 4))
    message = "takes a floating point network; {} it before snm.quantize$"
    with pytest.raises(ValueError, match="^snm.tune: " + message.format("tune")):
        snm.tune(net, images, 4)
    with pytest.raises(ValueError, match="^diagnose: " + message.format("diagnose")):
        snm.diagnose(net, model, images, timesteps=4)


def test_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    net, _ = quantized("residual")
    net.print_tree()
    printed = capsys.readouterr().out
    assert "IntegerConv(weight=[3, 2, 3, 3]" in printed
    assert "SNM, 4×1×1 thresholds, 1 silent" in printed
    assert "IntegerNeuron(threshold=[4, 1, 1], silent=1" in repr(net)
    assert "5 layers of neurons" in repr(net)


@pytest.mark.parametrize("name", NAMES)
def test_relu_network_is_that_of_the_rounded_weights(name: str) -> None:
    net, images = quantized(name)
    activations, logits = relu_pass(net, images)
    assert torch.equal(relu_logits(net, images), logits)
    net.chunk_steps = None
    mean = net.anytime(images, timesteps=64)
    assert set(activations) == set(net.layers)
    # A neuron sends one spike a step at most.
    capped = all(float(a.max()) <= 1 for a in activations.values())
    if capped:
        assert torch.allclose(mean[-1], logits, atol=0.1 * float(logits.abs().max()))


# --- the report ---


@pytest.mark.parametrize("name", NAMES)
def test_synapses_are_those_of_the_network_in_floating_point(name: str) -> None:
    model, calibration, images = exact_network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snm.DeadNeuronWarning)
        net = snm.convert(model, calibration, norm="channel", preset="snm-zero")
    integers = snm.quantize(net, calibration)
    for path, layer in integers.model.named_modules():
        if isinstance(layer, IntegerConv) and path in dict(net.model.named_modules()):
            # A weight that is rounded to 0 is no synapse.
            net.model.get_submodule(path).weight.data[layer.weight == 0] = 0.0
    size = tuple(images.shape[1:])
    expected, found = wiring(net, size), wiring(integers, size)
    assert found.shapes == expected.shapes
    for senders in expected.shapes:

        def leaving(targets: Any, sender: str = senders) -> Any:
            fans = [s.fan_out for t in targets for s in t.synapses if s.sender == sender]
            return sum(fans) if fans else 0

        assert torch.equal(
            torch.as_tensor(leaving(found.targets)), torch.as_tensor(leaving(expected.targets))
        )
    for part in ("first", "steps", "readout"):
        a, b = ([t for t in w.targets if t.part == part and t.weights] for w in (found, expected))
        assert [t.weights for t in a] == [t.weights for t in b]
        assert sum(t.analog for t in a) == sum(t.analog for t in b)
        assert sum(t.relu for t in a) == sum(t.relu for t in b)


@pytest.mark.parametrize("name", NAMES)
def test_report(name: str, tmp_path: Path) -> None:
    net, images = quantized(name)
    model = exact_network(name)[0]
    found = snm.report(net, images, timesteps=T, model=model, labels=torch.tensor([0, 1, 2]))
    with net.record() as recording:
        net(images, timesteps=T)
    for path, recorded in recording.items():
        layer = found.layers[path]
        assert layer.positive == int((recorded.spikes > 0).sum())
        assert layer.negative == int((recorded.spikes < 0).sum())
        silent = recorded.threshold == SILENT
        left = (recorded.membrane[-1] / recorded.threshold.double()).masked_fill(silent, 0.0)
        driven = (recorded.memory[-1] + left > recorded.rule.v_init) & ~silent
        assert layer.residual == pytest.approx(float(left[driven].abs().mean()))
        assert layer.dead == float((recorded.spikes == 0).all(0).all(0).double().mean())
    assert found.dtype == "integers"
    assert len(found.accuracy) == len(found.agreement) == T
    found.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["dtype"] == "integers"


@pytest.mark.parametrize("preset", ["snm-zero", "if-half", "burst"])
@pytest.mark.parametrize("name", NAMES)
def test_report_has_the_largest_membranes(name: str, preset: str) -> None:
    net, images = quantized(name, preset=preset)
    net.chunk_steps = 5
    found = snm.report(net, images.split(2), timesteps=T)
    with net.record() as recording:
        net(images, timesteps=T)
    for path, recorded in recording.items():
        theta, after = recorded.threshold.long(), recorded.membrane.long()
        start = (recorded.rule.v_init * theta.double()).floor().masked_fill(theta == SILENT, 0)
        seen = (after, after + theta * recorded.spikes, start)
        largest = max(int(each.abs().max()) for each in seen)
        assert found.observed_membrane_bits[path] == largest.bit_length() + 1
        assert found.observed_membrane_bits[path] <= found.membrane_bits[path]
        row = f"{path} {found.membrane_bits[path]} {found.observed_membrane_bits[path]}"
        assert row in [" ".join(line.split()) for line in str(found).splitlines()]


def test_report_has_what_layers_take(tmp_path: Path) -> None:
    net, images = quantized("plain")
    layers = {path: m for path, m in net.model.named_modules() if isinstance(m, IntegerConv)}
    found = snm.report(net, images, timesteps=T)
    timed = {path: layer for path, layer in layers.items() if layer.seconds}
    assert set(found.integers) <= set(timed)
    for path, reported in found.integers.items():
        seconds = timed[path].seconds
        assert min(seconds.values()) > 0
        assert reported.computed == min(seconds, key=seconds.__getitem__)
        assert reported.time_by_events == seconds["events"] / seconds["dense"]
        assert f"{path} {reported.computed} {reported.time_by_events:.2f} of dense" in [
            " ".join(line.split()[:5]) for line in str(found).splitlines()
        ]
    snm.save(net, tmp_path / "net")
    again = snm.report(snm.load(tmp_path / "net"), images, timesteps=T)
    assert again.integers.keys() == found.integers.keys()
    assert all(math.isnan(layer.time_by_events) for layer in again.integers.values())
    assert snm.Report.from_json(again.to_json()).to_json() == again.to_json()


# --- files ---


@pytest.mark.parametrize("options", [{}, {"encoder": "frames"}, {"readout": "count"}])
@pytest.mark.parametrize("name", ["plain", "residual", "ends in ReLU", "conv1d"])
def test_network_comes_back(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    net, images = quantized(name, **options)
    if "encoder" in options:
        images = images.expand(T, *images.shape)
    for path in ("events", "dense", None):
        if path is not None:
            set_paths(net, path)
        snm.save(net, tmp_path / "net")
        same = snm.load(tmp_path / "net")
        assert same.digest(images, timesteps=T) == net.digest(images, timesteps=T)
        assert torch.equal(same(images, timesteps=T), net(images, timesteps=T))
        assert paths_of(same) == paths_of(net)
        assert repr(same) == repr(net)
        states = zip(net.state_dict().items(), same.state_dict().items(), strict=True)
        for (own, a), (other, b) in states:
            assert own == other
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
        for neuron, other in zip(net.layers.values(), same.layers.values(), strict=True):
            assert isinstance(neuron, IntegerNeuron)
            assert isinstance(other, IntegerNeuron)
            assert (neuron.bound, neuron.most_steps) == (other.bound, other.most_steps)


def test_pixels_come_back(tmp_path: Path) -> None:
    model, _, _ = exact_network("plain")
    pixels = torch.randint(0, 256, (6, 2, 8, 8), dtype=torch.uint8)
    images = (pixels / 255 - 0.4) / 0.2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snm.DeadNeuronWarning)
        net = snm.convert(model, images, norm="channel")
    integers = snm.quantize(net, images, pixels=([0.4], [0.2]))
    integers.preprocessing = "{}"
    snm.save(integers, tmp_path / "net")
    same = snm.load(tmp_path / "net")
    assert same.preprocessing == "{}"
    assert same.digest(pixels, timesteps=T) == integers.digest(images, timesteps=T)


LAYERS: dict[type[nn.Module], nn.Module] = {
    type(layer): layer
    for layer in (
        IntegerConv(
            torch.ones(4, 1, 3, 2, dtype=torch.int8),
            *(torch.tensor([1, 2, 3, 4], dtype=torch.int32), (2, 1), (1, 0), (1, 2), 2, (2, 2)),
            largest=7,
            path="dense",
        ),
        IntegerLinear(torch.ones(2, 3, dtype=torch.int8), largest=4, path="dense"),
        IntegerSumPool((2, 3), True, True),
        IntegerScale(torch.tensor([3, 4], dtype=torch.int32)),
        IntegerReadout(torch.tensor([0.5, 0.25], dtype=torch.float64)),
        Pixels(torch.tensor([0.5], dtype=torch.float64), torch.tensor([9.5], dtype=torch.float64)),
        IntegerNeuron(
            torch.tensor([5, SILENT], dtype=torch.int32),
            bias=torch.tensor([1, -1], dtype=torch.int32),
            bound=9,
        ),
    )
}


def test_every_layer_is_tried() -> None:
    assert set(LAYERS) == set(blueprint._TENSORS) - {snm.nn.SNMNeuron}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=[cls.__name__ for cls in LAYERS])
def test_layer_comes_back(layer: nn.Module) -> None:
    own = {name: t for name, t in layer.named_buffers() if name != "packed"}
    raw = {"class": type(layer).__name__, "arguments": blueprint._arguments(layer)}
    same = blueprint._module("layer", json.loads(json.dumps(raw)), own)

    def settings(module: nn.Module) -> dict[str, Any]:
        return {name: value for name, value in vars(module).items() if name[0] != "_"}

    assert type(same) is type(layer)
    assert settings(same) == settings(layer)
    for name, tensor in layer.named_buffers():
        assert torch.equal(same.get_buffer(name), tensor)


@pytest.mark.parametrize(
    ("cls", "arguments", "tensors", "message"),
    [
        (
            IntegerConv,
            {},
            {},
            "IntegerConv must have a weight in int8, and may have a bias in int32",
        ),
        (IntegerConv, {}, {"weight": torch.float32}, r"got \['weight in float32'\]"),
        (IntegerConv, {"stride": [0]}, {"weight": torch.int8}, "IntegerConv cannot be made"),
        (IntegerConv, {"stride": [1, 1]}, {"weight": torch.int8}, "IntegerConv cannot be made"),
        (IntegerConv, {"padding": [-1]}, {"weight": torch.int8}, "IntegerConv cannot be made"),
        (IntegerConv, {"pool": []}, {"weight": torch.int8}, "IntegerConv cannot be made"),
        (IntegerConv, {"groups": 0}, {"weight": torch.int8}, "IntegerConv cannot be made"),
        (IntegerConv, {"largest": 0}, {"weight": torch.int8}, "IntegerConv cannot be made"),
        (IntegerNeuron, {"bound": -1}, {"threshold": torch.int32}, "IntegerNeuron cannot be made"),
        (IntegerConv, {"path": "fast"}, {"weight": torch.int8}, "cannot have str 'fast' as path"),
        (IntegerConv, {"packed": 1}, {"weight": torch.int8}, "IntegerConv has no 'packed'"),
        (IntegerNeuron, {}, {"threshold": torch.float32}, "must have a threshold in int32"),
        (IntegerNeuron, {"bound": "9"}, {"threshold": torch.int32}, "cannot have str '9' as bound"),
        (IntegerScale, {}, {"factor": torch.int64}, "must have a factor in int32"),
        (IntegerReadout, {}, {"unit": torch.float32}, "must have a unit in float64, got"),
        (Pixels, {}, {"step": torch.float32}, "must have a step in float64, and may have a zero"),
        (IntegerSumPool, {"size": [2]}, {"x": torch.int8}, "IntegerSumPool must have no tensors"),
    ],
)
def test_forged_layers_are_refused(
    cls: type[nn.Module], arguments: dict[str, Any], tensors: dict[str, Any], message: str
) -> None:
    usual = {"stride": [1], "padding": [0], "dilation": [1]} if cls is IntegerConv else {}
    shape = (2, 2, 3) if cls is IntegerConv else (2,)
    own = {name: torch.ones(shape, dtype=dtype) for name, dtype in tensors.items()}
    raw = {"class": cls.__name__, "arguments": {**usual, **arguments}}
    with pytest.raises(blueprint.Refusal, match=f"^layer: .*{message}"):
        blueprint._module("layer", raw, own)


def test_neurons_of_both_kinds_are_refused(tmp_path: Path) -> None:
    net, _ = quantized("plain")
    net.model.set_submodule("2", snm.nn.SNMNeuron(1.0))
    with pytest.raises(ValueError, match="some of its neurons are of integers, others are not"):
        snm.save(net, tmp_path / "net")


# --- digests ---


def test_digest_is_that_of_the_spikes() -> None:
    for net, images in (quantized("residual"), quantized("plain", preset="burst")):
        spikes = spikes_of(net, images, timesteps=T)
        content = b"".join(sent.contiguous().numpy().tobytes() for sent in spikes)
        assert net.digest(images, timesteps=T) == hashlib.sha256(content).hexdigest()


@pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")
def test_digests_of_floating_point_networks() -> None:
    model, calibration, images = exact_network("plain")
    net = snm.convert(model, calibration)
    digest = net.digest(images, timesteps=T)
    net.chunk_steps = 5
    assert net.digest(images, timesteps=T) == digest
    assert net.digest(images, timesteps=T, first_pass=snm.FirstPass("cos", 4)) != digest
    assert net.digest(images + 0.5, timesteps=T) != digest
    with pytest.raises(ValueError, match="timesteps must be"):
        net.digest(images, timesteps=0)


@pytest.mark.parametrize("path", ["events", "dense"])
def test_loaded_weights_are_used(path: Any) -> None:
    x = torch.ones(1, 1, 8, dtype=torch.int8)
    layers = [
        IntegerConv(torch.full((1, 1, 2), n, dtype=torch.int8), None, (1,), (0,), (1,), path=path)
        for n in (3, 5)
    ]
    for layer in layers:
        layer(x)
    layers[0].load_state_dict(layers[1].state_dict())
    assert torch.equal(layers[0](x), layers[1](x))
    assert layers[0].sums == layers[1].sums


@pytest.mark.parametrize(
    ("kernel", "padding", "dilation", "groups"),
    [
        ((128, 3, 2, 2), 1, 1, 2),
        ((24, 1, 3, 3), 1, 1, 24),
        ((40, 5, 3, 2), 2, 1, 4),
        ((64, 1, 5, 5), 6, 1, 1),
        ((5, 256, 5, 5), 4, 2, 1),
    ],
    ids=["groups", "depthwise", "wide margins", "a kernel in the padding", "dilation"],
)
def test_dense_equals_events(
    kernel: tuple[int, ...], padding: int, dilation: int, groups: int
) -> None:
    torch.manual_seed(0)
    weight = torch.randint(-127, 128, kernel).to(torch.int8)
    places = ((1, 1), (padding, padding), (dilation, dilation), groups)
    x = torch.randint(-1, 2, (2, kernel[1] * groups, 19, 19)).to(torch.int8)
    expected = IntegerConv(weight, None, *places)(x)
    dense = IntegerConv(weight, None, *places, path="dense")
    assert dense.can_be_dense
    assert torch.equal(dense(x), expected)


@pytest.mark.parametrize("stride", [(1, 2), (2, 1), (2, 2)], ids=str)
def test_rows_of_one_output(stride: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = torch.randint(-127, 128, (32, 2, 2, 5)).to(torch.int8)
    places = (stride, (0, 0), (1, 1))
    x = torch.randint(-1, 2, (2, 2, 15, 5)).to(torch.int8)
    dense, events = (IntegerConv(weight, None, *places, path=p) for p in ("dense", "events"))
    assert torch.equal(dense(x), events(x))


def test_dense_convolutions_of_too_little_are_refused() -> None:
    weight = torch.ones(5, 3, 4, 4, dtype=torch.int8)
    layer = IntegerConv(weight, None, (3, 3), (0, 0), (1, 1), path="dense")
    with pytest.raises(ValueError, match="x must be as large as the kernel"):
        layer(torch.ones(3, 3, 3, 3, dtype=torch.int8))


def test_sums_of_windows_that_are_too_large_are_refused() -> None:
    x = torch.full((1, 1, 1, 2, 2), 32, dtype=torch.int8)
    weight = torch.ones(1, 1, 1, 1, dtype=torch.int8)
    assert spike_conv(x, weight, pool=2).item() == 128
    with pytest.raises(RuntimeError, match="x must be with sums of windows that fit in int8"):
        spike_conv(x, weight, pool=2, dense=True)
    assert not IntegerConv(weight, None, (1, 1), (0, 0), (1, 1), 1, (2, 2), largest=32).can_be_dense


def test_sums_of_windows_of_integers_are_exact() -> None:
    weight = torch.ones(1, 1, 1, 1, dtype=torch.int8)
    layer = IntegerConv(weight, None, (1, 1), (0, 0), (1, 1), 1, (5, 5), largest=7)
    assert layer(torch.full((1, 1, 5, 5), 7, dtype=torch.int32)).item() == 175


@pytest.mark.parametrize("largest", [1, 9, 511, 2032, 2**20])
def test_sums_of_integers_are_exact(largest: int) -> None:
    torch.manual_seed(0)
    weight = torch.randint(-127, 128, (5, 3, 3, 3), dtype=torch.int8)
    bias = torch.randint(-99, 99, (5,), dtype=torch.int32)
    layer = IntegerConv(weight, bias, (1, 2), (1, 1), (1, 1), largest=largest)
    x = torch.randint(-largest, largest + 1, (2, 3, 7, 6), dtype=torch.int32)
    x[0, 0, 0, :2] = torch.tensor([-largest, largest])
    expected = conv2d(x.double(), weight.double(), bias.double(), (1, 2), (1, 1))
    assert torch.equal(layer(x), expected.to(torch.int32))

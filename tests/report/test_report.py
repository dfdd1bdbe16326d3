"""Reports: what is counted is what is seen from outside, and comes back from JSON."""

import gc
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import snm
import snm_kernels
from snm.reports.count.peak import Peak
from snm.reports.count.senders import exact_sum
from snm.reports.count.synapses import wiring
from snm.reports.energy import Energy, Operation, Work, energies
from support.networks import IMAGE_2D, NETWORKS, Plain, exact, exact_images, exact_network
from support.synapse_loops import spike_trains
from support.zoo import published

T = 8

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


def plain() -> tuple[nn.Module, snm.SpikingNetwork, Tensor, Tensor]:
    """A model, its network, images and their classes."""
    model, calibration, _ = exact_network("plain")
    images = exact_images(7, IMAGE_2D, seed=3)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    return model, snm.convert(model, calibration, preset="snm-zero"), images, labels


def counts(found: snm.Report) -> dict[str, Any]:
    """All of a report that does not depend on the machine."""
    fixed = replace(found, seconds=0.0, relu_seconds=0.0, peak_bytes=0)
    return json.loads(fixed.to_json())


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_those_of_the_simulation(name: str) -> None:
    model, calibration, images = exact_network(name)
    net = snm.convert(model, calibration, preset="snm-zero")
    trains = spike_trains(net, lambda: net(images, timesteps=T))
    found = snm.report(net, images, timesteps=T, model=model)
    diagnosis = snm.diagnose(net, model, images, timesteps=T)
    for path, train in trains.items():
        layer = found.layers[path]
        assert layer.positive == int((train > 0).sum())
        assert layer.negative == int((train < 0).sum())
        assert layer.neurons == train[0, 0].numel()
        assert layer.neuron_steps == train.numel()
        expected = diagnosis.layers[path]
        assert (layer.dead, layer.saturated) == (expected.dead, expected.saturated)
        assert layer.residual == expected.residual
        rates = train.abs().sum(0).flatten().div(T)
        bins = rates.mul(20).floor().clamp(max=19).where(rates <= 1, 20).long()
        assert list(layer.rates) == bins.bincount(minlength=21).tolist()
    assert found.synaptic_operations == sum(
        layer.synaptic_operations for layer in found.layers.values()
    )
    assert [path for path in found.layers if path in net.layers] == list(net.layers)


def test_answers_are_those_of_every_step() -> None:
    model, net, images, labels = plain()
    found = snm.report(net, images, timesteps=T, model=model, labels=labels)
    answers, theirs = net.anytime(images, timesteps=T).argmax(-1), model(images).argmax(1)
    assert found.accuracy == tuple((answers == labels).double().mean(1).tolist())
    assert found.agreement == tuple((answers == theirs).double().mean(1).tolist())
    assert found.relu_accuracy == float((theirs == labels).double().mean())
    assert found.seconds > 0
    assert found.relu_seconds > 0


def test_without_labels_and_model_there_are_no_answers() -> None:
    _, net, images, _ = plain()
    found = snm.report(net, images, timesteps=T)
    assert (found.accuracy, found.agreement) == ((), ())
    assert math.isnan(found.relu_accuracy)
    assert math.isnan(found.relu_seconds)


def test_batches_and_chunks_do_not_matter() -> None:
    model, net, images, labels = plain()
    whole = snm.report(net, images, timesteps=T, model=model, labels=labels)
    batches = list(zip(images.split(3), labels.split(3), strict=True))
    assert counts(snm.report(net, batches, timesteps=T, model=model)) == counts(whole)
    net.chunk_steps = 3
    parts = [(images[:0], labels[:0]), [images[:6]], images[6:]]
    found = snm.report(net, iter(parts), timesteps=T, model=model, labels=labels)
    assert counts(found) == counts(whole)


def test_reading_out_counts() -> None:
    model, calibration, images = exact_network("plain")
    net = snm.convert(model, calibration, readout="count")
    found = snm.report(net, images, timesteps=T, labels=torch.tensor([0, 1, 2]))
    expected = net.anytime(images, timesteps=T).argmax(-1) == torch.tensor([0, 1, 2])
    assert found.accuracy == tuple(expected.double().mean(1).tolist())
    # The output's neurons read the last layer's spikes.
    assert found.layers["10"].connections == int((model[12].weight != 0).sum())
    assert found.macs.readout == 0


def test_frames_and_chance() -> None:
    model, calibration, images = exact_network("plain")
    net = snm.convert(model, calibration, encoder="poisson")
    labels = torch.tensor([0, 1, 2])
    made = [
        snm.report(
            net,
            images,
            timesteps=T,
            model=model,
            labels=labels,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (0, 0, 1)
    ]
    assert counts(made[0]) == counts(made[1]) != counts(made[2])
    frames = snm.convert(model, calibration, encoder="frames")
    film = exact_images(T * 3, IMAGE_2D).unflatten(0, (T, 3))
    found = snm.report(frames, film, timesteps=T, labels=labels)
    assert found.images == 3
    split = snm.report(frames, [(film[:, :1], labels[:1]), (film[:, 1:], labels[1:])], timesteps=T)
    assert counts(split) == counts(found)
    assert found.macs.first == T * snm.report(net, images, timesteps=1).macs.first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    model, net, images, _ = plain()
    net, model = net.to(dtype), model.to(dtype)
    images = images.to(dtype)
    trains = spike_trains(net, lambda: net(images, timesteps=T))
    found = snm.report(net, images, timesteps=T, model=model)
    assert found.dtype == str(dtype).removeprefix("torch.")
    for path, train in trains.items():
        assert found.layers[path].negative == int((train < 0).sum())
        assert found.layers[path].positive == int((train > 0).sum())


def test_a_report_leaves_a_call_as_it_is() -> None:
    _, net, images, _ = plain()
    before = net(images, timesteps=T)
    snm.report(net, images, timesteps=T)
    assert torch.equal(net(images, timesteps=T), before)


def test_json_brings_back_all_of_it(tmp_path: Path) -> None:
    model, net, images, labels = plain()
    diagnosis = snm.diagnose(net, model, images, timesteps=T)
    for found in (
        snm.report(net, images, timesteps=T),
        snm.report(net, images, timesteps=T, model=model, labels=labels, diagnosis=diagnosis),
    ):
        text = found.to_json()
        again = snm.Report.from_json(text)
        assert again.to_json() == text
        assert repr(again) == repr(found)
        found.save(tmp_path / "report.json")
        assert snm.Report.from_json((tmp_path / "report.json").read_text()).to_json() == text
    assert again.diagnosis == diagnosis
    with pytest.raises(ValueError, match=r"path must end in \.json or \.html"):
        found.save(tmp_path / "report.txt")


def test_a_membrane_that_overflows_is_written_down(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    nn.init.ones_(model[0].weight)
    net = snm.convert(model, torch.rand(8, 2))
    nn.init.constant_(net.model.get_submodule("0").weight, 10.0)
    found = snm.report(net, torch.full((4, 2), 3e38), timesteps=T)
    assert found.layers["1"].residual == math.inf
    again = snm.Report.from_json(found.to_json())
    assert repr(again) == repr(found)
    found.save(tmp_path / "report.html")


def test_a_network_without_weights_costs_nothing(tmp_path: Path) -> None:
    images = torch.rand(4, 3)
    found = snm.report(snm.convert(nn.Sequential(nn.ReLU()).eval(), images), images, timesteps=T)
    assert [one.ratio for one in found.energy] == [1.0, 1.0, math.inf]
    assert found.verdict.startswith("The spiking network does not spend less")
    assert found.verdict in str(found)
    found.save(tmp_path / "report.html")


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("macs"),
        lambda raw: raw.update(images="many"),
        lambda raw: raw.update(images=1.5),
        lambda raw: raw.update(seconds="1"),
        lambda raw: raw.update(seconds=True),
        lambda raw: raw.update(more=1),
        lambda raw: raw["rule"].update(max_spikes=0),
        lambda raw: raw["layers"]["2"].update(kind="other"),
        lambda raw: raw.update(layers=[]),
    ],
)
def test_other_json_is_no_report(change: Any) -> None:
    _, net, images, _ = plain()
    raw = json.loads(snm.report(net, images, timesteps=1).to_json())
    change(raw)
    with pytest.raises(ValueError, match="text must be a report's JSON"):
        snm.Report.from_json(json.dumps(raw))


def test_printed() -> None:
    model, net, images, labels = plain()
    found = snm.report(net, images, timesteps=T, model=model, labels=labels)
    text = str(found)
    assert found.verdict in text
    for path, layer in found.layers.items():
        (line,) = (line for line in text.splitlines() if re.match(rf"{re.escape(path)} ", line))
        cells = line.split()
        assert cells[1] == str(layer.neurons)
        assert cells[2] == f"{layer.positive_rate:.4f}"
        assert float(cells[-1]) == pytest.approx(layer.synaptic_operations / 7, rel=1e-3)
    for energy in found.energy:
        assert f"{1e3 * energy.quantised:.4g}" in text


def test_what_the_conventions_say() -> None:
    first = Operation(10, 100, 50, 0.0, 0.0, 1000, "first", 1000)
    later = Operation(20, 50, 25, 30.0, 600.0, 40, "steps", 800)
    work = Work(3, (first, later), ((50, 30.0),))
    arithmetic, chip, memory = energies(work, 2)
    assert arithmetic.snn == pytest.approx(1e-12 * (1040 * 4.6 + 600 * 0.9))
    assert arithmetic.ann == pytest.approx(1e-12 * 1800 * 4.6)
    assert arithmetic.quantised == pytest.approx(1e-12 * (1000 * 4.6 + 800 * (0.9 + 3.7 * 2 / 32)))
    assert chip.snn == pytest.approx(1e-12 * (1040 * 12.5 + 600 * 0.077))
    assert chip.quantised == pytest.approx(1e-12 * (1000 * 12.5 + 800 * 12.5 * 2 / 32))

    def access(elements: int, bits: int = 32) -> float:
        return 13.2 + 1.09e-5 * elements * bits

    analog = 1000 * (access(100) + access(10) + 3.2) + 50 * access(50)
    assert memory.ann == pytest.approx(
        1e-12 * (analog + 800 * (access(50) + access(20) + 3.2) + 25 * access(25))
    )
    assert memory.quantised == pytest.approx(
        1e-12 * (analog + 800 * (access(50, 2) + access(20) + 3.1 / 16 + 0.1) + 25 * access(25, 2))
    )
    assert memory.snn == pytest.approx(
        1e-12
        * (
            analog
            + 40 * (access(50) + access(20) + 3.2)
            + 25 * access(25)
            + 600 * (access(20) + 2 * access(25) + 0.2)
            + 30 * (access(0) + 2 * 3.2)
            + 3 * 50 * (2 * access(50) + 0.1)
            + 30 * 0.1
            + 30 * access(0)
        )
    )
    for energy in (arithmetic, chip, memory):
        assert energy.snn == pytest.approx(sum(energy.parts.values()))
        assert energy.source


@pytest.mark.parametrize(
    ("rule", "bits"),
    [
        (snm_kernels.SNMRule(), 4),
        (snm_kernels.SNMRule(max_spikes=4), 6),
        (snm_kernels.SNMRule.st_bif(levels=3), 2),
        (snm_kernels.SNMRule(max_spikes=4, count_max=40), 6),
        (snm_kernels.SNMRule(max_spikes=4, count_max=15), 4),
    ],
)
@pytest.mark.filterwarnings("ignore:SpikingNetwork. neurons send no more")
def test_the_quantised_network_tells_as_many_levels_apart(
    rule: snm_kernels.SNMRule, bits: int
) -> None:
    model, calibration, images = exact_network("plain")
    found = snm.report(snm.convert(model, calibration, preset=rule), images, timesteps=T)
    assert found.bits == bits
    arithmetic = found.energy[0]
    later = found.macs.relu - found.macs.first
    assert arithmetic.quantised == pytest.approx(
        1e-12 * (4.6 * found.macs.first + (0.9 + 3.7 * bits / 32) * later)
    )


def judged(*ratios: float) -> str:
    _, net, images, _ = plain()
    energy = tuple(
        Energy(f"way {place}", "", snn=ratio, ann=8.0, quantised=1.0, parts={})
        for place, ratio in enumerate(ratios)
    )
    return replace(snm.report(net, images, timesteps=T), energy=energy).verdict


def test_the_verdict_says_who_loses() -> None:
    against = "the ReLU network quantised to 4 bits"
    assert judged(0.5, 0.25).startswith(
        f"The spiking network spends less than {against}: 0.5 times"
    )
    assert judged(1.0, 3.0).startswith(f"The spiking network does not spend less than {against}: 1")
    assert judged(0.5, 3.0) == (
        f"The spiking network spends less than {against} by some conventions, 0.5 times as much by "
        "way 0, and does not by others, 3 times as much by way 1."
    )


def test_recorded_at_once() -> None:
    _, net, images, _ = plain()
    alone = snm.report(net, images, timesteps=T)
    with net.record() as recording:
        found = snm.report(net, images, timesteps=T)
    assert counts(found) == counts(alone)
    for path, layer in recording.items():
        assert found.layers[path].negative == int((layer.spikes < 0).sum())


def test_hooks_that_would_not_run_are_refused() -> None:
    _, net, images, _ = plain()
    hook = net.layers["5"].register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="hooks of 5"):
        snm.report(net, images, timesteps=T)
    hook.remove()
    snm.report(net, images, timesteps=T)


def test_sums_that_no_int64_holds() -> None:
    assert exact_sum(torch.full((5,), 2**62 + 1)) == 5 * (2**62 + 1)


def test_peak_of_what_is_freed_again() -> None:
    peak = Peak(torch.device("cpu"))
    with peak.measured(2):
        torch.ones(2**24)
    with peak.measured(3):
        pass
    # Linux updates its numbers every few dozen pages.
    assert 2**26 - 2**20 <= peak.bytes < 2**27


class Cycle:
    """Memory that only the collector frees."""

    def __init__(self) -> None:
        self.itself, self.held = self, torch.ones(2**22)


def test_a_peak_is_not_hidden_by_what_is_collected_within() -> None:
    peak = Peak(torch.device("cpu"))
    Cycle()
    with peak.measured(1):
        gc.collect()
        torch.ones(2**22)
    assert peak.bytes >= 2**24 - 2**20


def test_the_peak_is_taken_once_for_batches_of_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    _, net, images, _ = plain()
    restarts: list[int] = []
    restart = Peak._restart
    monkeypatch.setattr(Peak, "_restart", lambda peak: restarts.append(1) or restart(peak))
    sizes = [images[:2], images[:2], images[:1], images[:3]]
    found = snm.report(net, sizes, timesteps=T)
    assert (found.images, len(restarts)) == (8, 2)
    assert found.peak_bytes >= 0


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_published_models(name: str) -> None:
    model, images = published(name)
    net = snm.convert(model, images)
    found = snm.report(net, images, timesteps=2, model=model)
    convolutions: list[int] = []

    def count(conv: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        ones = torch.ones_like(args[0][:1], dtype=torch.float64)
        weight = (conv.weight != 0).double()
        if isinstance(conv, nn.Linear):
            convolutions.append(int((ones @ weight.T).sum()))
            return
        made = torch.conv2d(
            ones, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        assert made.shape[1:] == output.shape[1:]
        convolutions.append(int(made.sum()))

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    model(images)
    assert found.macs.relu == sum(convolutions)
    assert found.macs.first == convolutions[0]
    assert found.macs.readout == convolutions[-1]
    targets = wiring(net, tuple(images.shape[1:])).targets
    synapses = sum(int(s.fan_out.sum()) for t in targets if t.weights for s in t.synapses)
    analog = found.macs.steps // 2
    assert synapses + analog == found.macs.relu - found.macs.first - found.macs.readout
    assert (analog > 0) == (name == "mobilenet_v2")
    skips = sum(int(s.fan_out.sum()) for t in targets if not t.weights for s in t.synapses)
    assert sum(layer.connections for layer in found.layers.values()) == synapses + skips
    assert (skips > 0) == (name == "resnet18")


@pytest.mark.parametrize(
    ("error", "message", "changes"),
    [
        (TypeError, "net must be a SpikingNetwork", {"net": nn.ReLU()}),
        (ValueError, "timesteps must be at least 1", {"timesteps": 0}),
        (TypeError, "labels must be integers", {"labels": torch.zeros(7)}),
        (ValueError, "labels must be of the 7 images, got 8", {"labels": torch.arange(8)}),
        (ValueError, "labels must be as many", {"labels": torch.arange(6)}),
        (ValueError, "at least one image", {"images": torch.zeros(0, *IMAGE_2D)}),
        (ValueError, "at least one image", {"images": []}),
        (TypeError, "images must be a tensor of images or an iterable", {"images": 3}),
        (TypeError, "a batch of images must be a tensor", {"images": ["a"]}),
        (TypeError, "labels must be integers", {"images": [(torch.zeros(1, *IMAGE_2D), "a")]}),
        (
            ValueError,
            r"images must be \[2, 8, 8\] each",
            {"images": [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 9)]},
        ),
        (TypeError, "diagnosis must be", {"diagnosis": 3}),
        (ValueError, "model must compute what the network", {"model": exact(Plain(), seed=5)}),
        (ValueError, "model is in training mode", {"model": Plain()}),
    ],
)
def test_refusals(error: type[Exception], message: str, changes: dict[str, Any]) -> None:
    model, net, images, labels = plain()
    given = {"net": net, "images": images, "timesteps": T, "model": model, "labels": labels}
    given |= changes
    with pytest.raises(error, match=message):
        snm.report(given.pop("net"), given.pop("images"), **given)


def test_refusals_of_other_networks() -> None:
    model, net, images, _ = plain()
    diagnosis = snm.diagnose(net, model, images, timesteps=T - 1)
    with pytest.raises(ValueError, match="diagnosis must be of this network in 8 time steps"):
        snm.report(net, images, timesteps=T, diagnosis=diagnosis)
    film = exact_images(T * 3, IMAGE_2D).unflatten(0, (T, 3))
    frames = snm.convert(model, images, encoder="frames")
    with pytest.raises(ValueError, match="model must be None with encoder='frames'"):
        snm.report(frames, film, timesteps=T, model=model)
    with pytest.raises(ValueError, match="frames must be at least 9"):
        snm.report(frames, film, timesteps=T + 1)
    maps = exact(nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1)))
    with pytest.raises(ValueError, match=r"the answer must be \[B, classes\]"):
        snm.report(snm.convert(maps, images), images, timesteps=T, model=maps)

"""Errors taken apart: networks of which each part is known, exact sums, counts in closed form."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import snm
from snm.conversion.lowering.prepare import prepare
from snm.conversion.tracing.traced_model import Runner
from snm.diagnosis.result import PARTS, add_up
from snm.diagnosis.watch import parts_of
from snm.network.relu import relu_pass
from snm_kernels import PRESETS, SNMRule
from snm_kernels import snm as run_neurons
from support.networks import NETWORKS, exact_images, exact_network

T = 8

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


def constant_count(drive: Fraction, threshold: Fraction, rule: SNMRule, steps: int) -> int:
    """What a drive that is constant in time makes of a count, for a start in [0, θ].

    A neuron that can send all it has collected ends with floor((v(0) + T·c) / θ); it sends no more
    than Γ a step and count_max in all, and a drive below 0 makes it send nothing.
    """
    start = Fraction(rule.v_init) * threshold
    count = math.floor((start + steps * drive) / threshold)
    return max(0, min(count, steps * rule.max_spikes, rule.count_bounds[1]))


@pytest.mark.parametrize("steps", [1, 2, 7, 16, 40])
@pytest.mark.parametrize("name", [*PRESETS, "st-bif 4", "graded"])
def test_counts_of_constant_drives_are_known(name: str, steps: int) -> None:
    rules = {"st-bif 4": SNMRule.st_bif(4), "graded": SNMRule(v_init=0.5, max_spikes=3)}
    rule = rules.get(name) or snm.preset(name)
    for threshold in (Fraction(1), Fraction(3, 4), Fraction(5, 2)):
        drives = [Fraction(k, 16) for k in range(-40, 161)]
        drive = torch.tensor([float(c) for c in drives])
        found = run_neurons(drive.expand(steps, -1), float(threshold), rule=rule, emit="none")
        expected = [constant_count(c, threshold, rule, steps) for c in drives]
        assert found.state.m.tolist() == expected


def signed(layer: snm.LayerDiagnosis) -> dict[str, float]:
    return {name: part.signed for name, part in layer.parts.items()}


def one_neuron(preset: str | SNMRule) -> tuple[nn.Module, snm.SpikingNetwork]:
    """A neuron driven by the image itself, with a threshold of 1."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2)).eval()
    nn.init.ones_(model[0].weight)
    return model, snm.convert(model, torch.ones(1, 1), preset=preset)


def test_only_clipping() -> None:
    model, net = one_neuron("snm")
    diagnosis = snm.diagnose(net, model, torch.tensor([[2.5], [0.25]]), timesteps=4)
    layer = diagnosis.layers["1"]
    assert signed(layer) == {
        "inherited": 0,
        "correction": 0,
        "clipping": -0.75,
        "quantisation": 0,
        "order": 0,
    }
    assert layer.error == snm.Part(-0.75, 0.75, 0.75)
    assert (layer.clipped, layer.saturated, layer.dead, layer.muted) == (0.5, 0.5, 0, 0)
    assert layer.residual == 0.5 * 6
    assert "layer 1 clips 50.0 % of its activations: use larger thresholds" in diagnosis.advice


def test_only_quantisation() -> None:
    model, net = one_neuron("snm")
    diagnosis = snm.diagnose(net, model, torch.tensor([[0.375]]), timesteps=4)
    layer = diagnosis.layers["1"]
    assert signed(layer) == {
        "inherited": 0,
        "correction": 0,
        "clipping": 0,
        "quantisation": -0.125,
        "order": 0,
    }
    assert layer.parts["quantisation"] == layer.error == snm.Part(-0.125, 0.125, 0.125)
    assert (layer.clipped, layer.saturated, layer.residual) == (0, 0, 0.5)
    assert "loses 33.3 % of its mean activation to quantisation: start" in diagnosis.advice

    model, net = one_neuron("snm-half")
    diagnosis = snm.diagnose(net, model, torch.tensor([[0.375]]), timesteps=4)
    assert signed(diagnosis.layers["1"])["quantisation"] == 0.125
    assert "to quantisation: use snm.tune, more time steps" in diagnosis.advice


def late_inhibition(preset: str | SNMRule) -> tuple[nn.Module, snm.SpikingNetwork]:
    """Two neurons of one rate, one of which sends half as often twice as much; a third that the
    first excites and the second inhibits, so that its mean drive is 0."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[2].weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 0.0]]))
        model[0].bias.zero_()
        model[2].bias.zero_()
    calibration = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    return model.eval(), snm.convert(model, calibration, preset=preset)


def test_only_order() -> None:
    model, net = late_inhibition("if")
    assert net.layers["1"].threshold.tolist() == [1, 2]
    assert net.layers["3"].threshold.tolist() == [1, 0.5]
    diagnosis = snm.diagnose(net, model, torch.tensor([[0.5, 0.5]]), timesteps=4)
    first, second = diagnosis.layers.values()
    assert first.error == snm.Part(0, 0, 0)
    # One spike of four came early and is never taken back, of two neurons.
    assert signed(second) == {
        "inherited": 0,
        "correction": 0,
        "clipping": 0,
        "quantisation": 0,
        "order": 0.125,
    }
    assert (second.negative, second.corrected) == (0, 0)
    assert "layer 3 loses 100.0 % of its mean activation to order: use preset='snm-zero'" in str(
        diagnosis
    )

    model, net = late_inhibition("snm")
    second = snm.diagnose(net, model, torch.tensor([[0.5, 0.5]]), timesteps=4).layers["3"]
    assert second.error == second.parts["order"] == snm.Part(0, 0, 0)
    # Of the first neuron one spike of two, beside two of the second.
    assert (second.negative, second.corrected) == (0.25, 0.5)


class AddsBack(nn.Module):
    """The second layer's drives come by two ways, one of which adds the first layer's spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.linear, self.second = nn.ReLU(), nn.Linear(2, 2), nn.ReLU()
        self.last = nn.Linear(2, 2)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[0.0, -1.0], [0.5, -1.0]]))
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        sent = self.first(x)
        return self.last(self.second(self.linear(sent) + sent))


def test_order_of_what_two_drives_bring() -> None:
    model = AddsBack().eval()
    net = snm.convert(model, torch.tensor([[1.0, 0.0], [0.0, 2.0]]), preset="if")
    assert net.program.neurons[1].residual is not None
    layer = snm.diagnose(net, model, torch.tensor([[0.5, 0.5]]), timesteps=4).layers["second"]
    # As in late_inhibition.
    assert signed(layer) == {
        "inherited": 0,
        "correction": 0,
        "clipping": 0,
        "quantisation": 0,
        "order": 0.125,
    }


def test_graded_spikes_count_as_many() -> None:
    rule = SNMRule(negative_threshold=1.0, max_spikes=2)
    model, net = late_inhibition(rule)
    net.model.set_submodule("3", snm.nn.SNMNeuron(torch.full((2,), 0.5), rule))
    second = snm.diagnose(net, model, torch.tensor([[0.5, 0.5]]), timesteps=4).layers["3"]
    # Two at once of the first, one of which it takes back; two of the second.
    assert second.negative == 1 / 5


def test_images_of_all_sizes_add_up() -> None:
    model, net = one_neuron("snm")
    small, large = torch.full((50, 1), 1e-7), torch.full((50, 1), 100.0)
    ways = (torch.cat([small, large]), torch.cat([large, small]), [small, (large, None)])
    found = [snm.diagnose(net, model, images, timesteps=4) for images in ways]
    assert found[0] == found[1] == found[2]
    assert found[0].layers["1"].activation == pytest.approx(50.00000005, rel=1e-9)
    assert found[0].layers["1"].error.signed == pytest.approx(-49.50000005, rel=1e-9)


def test_images_are_not_written_into() -> None:
    class Shifts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.linear = nn.ReLU(), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            x -= 0.5
            return self.linear(self.relu(x))

    model, images = Shifts().eval(), torch.rand(8, 2)
    kept = images.clone()
    net = snm.convert(model, images)
    assert snm.diagnose(net, model, images, timesteps=4) == snm.diagnose(
        net, None, images, timesteps=4
    )
    snm.calibrate_stop(net, model, images, agreement=0.1, max_steps=4)
    assert torch.equal(images, kept)


def test_what_only_biases_get_wrong_is_not_nothing() -> None:
    model, net = one_neuron("snm")
    net.model.set_submodule("1", snm.nn.SNMNeuron(torch.ones(1), bias=0.25))
    diagnosis = snm.diagnose(net, model, torch.tensor([[0.25]]), timesteps=4)
    assert diagnosis.layers["1"].error.signed == 0.25
    assert diagnosis.advice.startswith("No layer loses by clipping, quantisation or order")


def test_what_the_first_layer_loses_the_second_inherits() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    model = nn.Sequential(*model, nn.ReLU(), nn.Linear(1, 2)).eval()
    nn.init.ones_(model[0].weight)
    nn.init.constant_(model[2].weight, 2.0)
    net = snm.convert(model, torch.ones(1, 1))
    first, second = snm.diagnose(net, model, torch.tensor([[0.375]]), timesteps=4).layers.values()
    assert first.error.signed == -0.125
    assert signed(second) == {
        "inherited": -0.25,
        "correction": 0,
        "clipping": 0,
        "quantisation": 0,
        "order": 0,
    }
    assert "layer 1 loses" in snm.diagnose(net, model, torch.tensor([[0.375]]), timesteps=4).advice


def test_silent_neurons_clip_all_they_are_driven_with() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2)).eval()
    nn.init.eye_(model[0].weight)
    net = snm.convert(model, torch.tensor([[1.0, -1.0]]))
    diagnosis = snm.diagnose(net, model, torch.tensor([[0.5, 0.5]]), timesteps=4)
    layer = diagnosis.layers["1"]
    assert signed(layer) == {
        "inherited": 0,
        "correction": 0,
        "clipping": -0.25,
        "quantisation": 0,
        "order": 0,
    }
    assert (layer.silent, layer.dead, layer.muted, layer.clipped) == (0.5, 0.5, 0.5, 0.5)
    assert layer.saturated == 0
    assert layer.residual == 0
    assert "has 50.0 % of its activations in neurons that never fired" in diagnosis.advice


def test_bounded_counts_clip() -> None:
    model, net = one_neuron(SNMRule.st_bif(2))
    with pytest.warns(UserWarning, match="no more than 2 spikes"):
        diagnosis = snm.diagnose(net, model, torch.tensor([[0.75]]), timesteps=8)
    layer = diagnosis.layers["1"]
    assert signed(layer) == {
        "inherited": 0,
        "correction": 0,
        "clipping": -0.5,
        "quantisation": 0,
        "order": 0,
    }
    assert (layer.clipped, layer.saturated) == (1, 1)
    assert "use a rule with a larger count_max than 2, or timesteps=2" in diagnosis.advice


def test_nothing_is_lost() -> None:
    model, net = one_neuron("snm")
    diagnosis = snm.diagnose(net, model, torch.tensor([[0.5]]), timesteps=4)
    assert diagnosis.layers["1"].error == snm.Part(0, 0, 0)
    assert str(diagnosis).endswith("Nothing is lost: every rate is the ReLU network's activation.")
    # Without any activation there is no percentage.
    nothing = str(snm.diagnose(net, model, torch.tensor([[-1.0]]), timesteps=4))
    assert nothing.splitlines()[2].split()[:7] == ["1", "1", "-", "-", "-", "-", "-"]


def activations_of(model: nn.Module, images: Tensor, readout: str) -> dict[str, Tensor]:
    """What the ReLUs of a model's traced graph give, by the path of the layer."""
    prepared = prepare(model, images, "direct", readout)
    found: dict[str, Tensor] = {}

    class Watch(Runner):
        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            if n in prepared.paths:
                # Another ReLU may write over it.
                found[prepared.paths[n]] = result.clone()
            return result

    Watch(prepared.traced).run(images.clone())
    return found


def rates_of(net: snm.SpikingNetwork, images: Tensor) -> dict[str, Tensor]:
    rates: dict[str, Tensor] = {}
    hooks = [
        neuron.register_forward_hook(
            lambda n, _, output, path=path: rates.update({path: n.amplitude(output.state.m) / T})
        )
        for path, neuron in net.layers.items()
    ]
    net(images, timesteps=T)
    for hook in hooks:
        hook.remove()
    return rates


@pytest.mark.parametrize("readout", ["mean", "count"])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_network_with_relus_is_the_relu_network(name: str, readout: str) -> None:
    model, calibration, images = exact_network(name)
    net = snm.convert(model, calibration, readout=readout)
    activations, output = relu_pass(net, images)
    expected = activations_of(model, images, readout)
    assert list(activations) == list(expected)
    assert all(torch.equal(activations[path], expected[path]) for path in expected)
    logits = model(images)
    assert torch.equal(output, logits.relu() if readout == "count" else logits)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_parts_add_up_to_the_error(name: str, preset: str) -> None:
    model, calibration, images = exact_network(name)
    net = snm.convert(model, calibration, preset=preset, chunk_steps=3)
    diagnosis = snm.diagnose(net, model, images, timesteps=T)
    activations, rates = activations_of(model, images, "mean"), rates_of(net, images)
    assert list(diagnosis.layers) == list(net.layers)
    for path, layer in diagnosis.layers.items():
        for kind in ("signed", "absolute"):
            parts = [getattr(layer.parts[part], kind) for part in PARTS]
            assert sum(parts) == getattr(layer.error, kind)
        error = rates[path].double() - activations[path].double()
        # What is rounded is 2⁻³² of the largest value.
        rounding = 2.0**-30 * float(activations[path].abs().amax() + 1)
        assert layer.error.signed == pytest.approx(error.mean().item(), abs=rounding)
        assert layer.error.absolute == pytest.approx(error.abs().mean().item(), abs=rounding)
        assert layer.error.size == pytest.approx(layer.error.absolute, abs=rounding)
        assert layer.neurons == error[0].numel()
        without = (rates[path] == 0).all(0).double().mean().item()
        # Others took back all that they had sent.
        assert layer.dead <= without
        assert layer.dead == without or layer.negative > 0
    # What drives the first layer is constant in time.
    first = next(iter(diagnosis.layers.values()))
    assert first.parts["inherited"] == first.parts["order"] == snm.Part(0, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_parts_of_each_element_add_up(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    stages = [torch.randn(1000, generator=generator).double().exp() for _ in range(5)]
    parts, whole = parts_of(stages, 2.0**-30)
    assert torch.equal(sum(parts), whole)
    assert (whole.double() * 2.0**-30 - (stages[-1] - stages[0])).abs().max() <= 2.0**-30


def test_rounded_numbers_add_up() -> None:
    parts = [Fraction(1, 3), Fraction(-1, 7), Fraction(2, 3), Fraction(1, 7)]
    rounded = add_up(parts, Fraction(1, 8))
    assert sum(rounded) == 1
    assert all(abs(a - b) <= Fraction(1, 8) for a, b in zip(rounded, parts, strict=True))


def test_printed_parts_add_up() -> None:
    model, calibration, _ = exact_network("residual")
    net = snm.convert(model, calibration, preset="snm-zero")
    diagnosis = snm.diagnose(net, model, exact_images(20, seed=5) / 3, timesteps=5)
    title, head, *rows, advice = str(diagnosis).splitlines()
    assert title.startswith("T = 5, 20 images;")
    assert head.split() == ["layer", "neurons", "|error|", *PARTS, *head.split()[8:]]
    assert len(rows) == len(net.layers)
    assert len({len(line) for line in (head, *rows)}) == 1
    for row in rows:
        total, *parts = map(Fraction, row.split()[2:8])
        assert total > 0
        assert sum(parts) == total
    assert advice == diagnosis.advice


def test_batches_and_chunks_change_nothing() -> None:
    model, calibration, _ = exact_network("pooled")
    images = exact_images(120, seed=7)
    whole = snm.convert(model, calibration, preset="snm-half")
    chunked = snm.convert(model, calibration, preset="snm-half", chunk_steps=1)
    expected = snm.diagnose(whole, model, images, timesteps=T)
    assert snm.diagnose(chunked, model, images, timesteps=T) == expected
    assert expected.images == 120
    halves = [snm.diagnose(whole, model, half, timesteps=T) for half in images.split(60)]
    for path, layer in expected.layers.items():
        means = [half.layers[path].error.absolute for half in halves]
        assert layer.error.absolute == pytest.approx(sum(means) / 2, abs=2.0**-28)


def test_without_the_model() -> None:
    for form in ("payload", "normalised"):
        model, calibration, images = exact_network("plain")
        net = snm.convert(model, calibration, norm="channel", form=form)
        alone = snm.diagnose(net, None, images, timesteps=T)
        assert alone == snm.diagnose(net, model, images, timesteps=T)
        assert alone.layers["2"].error.absolute > 0


def test_what_a_cap_cuts_off_is_no_error() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU6(), nn.Linear(1, 2)).eval()
    nn.init.ones_(model[0].weight)
    net = snm.convert(model, torch.tensor([[8.0]]))
    for of in (model, None):
        layer = snm.diagnose(net, of, torch.tensor([[7.0]]), timesteps=4).layers["1"]
        assert layer.activation == 6
        assert layer.error == snm.Part(0, 0, 0)
        assert signed(layer) == dict.fromkeys(PARTS, 0)
        assert layer.clipped == 0


def test_the_bias_of_neurons_is_part_of_their_drive() -> None:
    model, net = one_neuron("snm")
    net.model.set_submodule("1", snm.nn.SNMNeuron(torch.ones(1), bias=0.25))
    layer = snm.diagnose(net, model, torch.tensor([[0.375]]), timesteps=4).layers["1"]
    assert signed(layer) == {
        "inherited": 0,
        "correction": 0.25,
        "clipping": 0,
        "quantisation": -0.125,
        "order": 0,
    }
    assert layer.error == snm.Part(0.125, 0.125, 0.125)


def test_half_precision() -> None:
    model, calibration, images = exact_network("residual")
    net = snm.convert(model, calibration).to(torch.bfloat16)
    diagnosis = snm.diagnose(net, None, images.bfloat16(), timesteps=T)
    for layer in diagnosis.layers.values():
        assert sum(part.signed for part in layer.parts.values()) == layer.error.signed


def test_the_network_stays_as_it_was() -> None:
    model, calibration, images = exact_network("pooled")
    net = snm.convert(model, calibration)
    before = net(images, timesteps=T)
    snm.diagnose(net, model, images, timesteps=T)
    assert torch.equal(net(images, timesteps=T), before)
    assert not any(neuron._forward_pre_hooks for neuron in net.layers.values())
    with pytest.raises(ValueError, match="finite"):
        snm.diagnose(net, model, images * math.nan, timesteps=T)
    assert not any(neuron._forward_pre_hooks for neuron in net.layers.values())


def test_the_picture(tmp_path: Path) -> None:
    model, net = late_inhibition("if")
    diagnosis = snm.diagnose(net, model, torch.tensor([[0.5, 0.25]]), timesteps=5)
    diagnosis.picture(tmp_path / "parts.png")
    assert (tmp_path / "parts.png").read_bytes().startswith(b"\x89PNG")
    diagnosis.picture(tmp_path / "parts.svg")
    drawn = (tmp_path / "parts.svg").read_text()
    assert all(f"<!-- {part} -->" in drawn for part in (*PARTS, "What is lost in 5 time steps"))


def test_no_picture_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, net = one_neuron("snm")
    diagnosis = snm.diagnose(net, model, torch.tensor([[0.5]]), timesteps=4)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'snm-kernels\[demo\]'"):
        diagnosis.picture(tmp_path / "parts.png")


def test_what_is_refused() -> None:
    model, net = one_neuron("snm")
    images = torch.tensor([[0.5]])
    with pytest.raises(TypeError, match="diagnose: net must be a SpikingNetwork, got Sequential"):
        snm.diagnose(model, model, images, timesteps=4)
    with pytest.raises(ValueError, match="diagnose: timesteps must be at least 1, got 0"):
        snm.diagnose(net, model, images, timesteps=0)
    with pytest.raises(ValueError, match="images must hold at least one image, got none"):
        snm.diagnose(net, model, images[:0], timesteps=4)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        snm.diagnose(net, "model", images, timesteps=4)
    frames = snm.convert(model, images, encoder="frames")
    with pytest.raises(ValueError, match="diagnose: takes a network with encoder='direct'"):
        snm.diagnose(frames, model, images, timesteps=4)
    other = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU()).eval()
    with pytest.raises(ValueError, match="diagnose: model must compute what the network"):
        snm.diagnose(net, other, torch.tensor([[0.5]]), timesteps=4)


def test_another_model_is_refused() -> None:
    model, net = one_neuron("snm")
    with torch.no_grad():
        model[2].bias.add_(1)
    with pytest.raises(ValueError, match="got logits that differ by up to 1; give the model"):
        snm.diagnose(net, model, torch.tensor([[0.5]]), timesteps=4)

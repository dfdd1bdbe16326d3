"""What conversion makes of a model, and what it leaves alone."""

import copy
import io
import pickle
import warnings
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, TensorDataset

import snm
from snm.network.program import RunningMax
from snm.network.tree import tree
from snm_kernels import SNMOutput
from support.naive import naive_thresholds, simulate_naively
from support.networks import (
    NETWORKS,
    PreActivation,
    Residual,
    exact,
    exact_images,
    exact_network,
)

T = 8

quiet = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


def small_network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    ).eval()


@quiet
@pytest.mark.parametrize("name", NETWORKS)
def test_model_is_left_alone(name: str) -> None:
    model, calibration, images = exact_network(name)
    state, expected = copy.deepcopy(model.state_dict()), model(images.clone())
    modules, given = list(model.modules()), (calibration.clone(), images.clone())
    net = snm.convert(model, calibration)
    net(images, timesteps=T)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.equal(calibration, given[0])
    assert torch.equal(images, given[1])
    assert list(model.modules()) == modules
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(images.clone()), expected)


@quiet
@pytest.mark.parametrize("first", [nn.ReLU(inplace=True), nn.SiLU(inplace=True)])
def test_writing_in_place_spares_the_images(first: nn.Module) -> None:
    model = nn.Sequential(first, nn.Flatten(), nn.Linear(18, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    calibration, images = torch.randn(8, 2, 3, 3), torch.randn(4, 2, 3, 3)
    given = calibration.clone(), images.clone()
    net = snm.convert(model, [calibration[:3], calibration[3:]])
    net(images, timesteps=2)
    net.anytime(images, timesteps=2)
    assert torch.equal(calibration, given[0])
    assert torch.equal(images, given[1])
    assert first.inplace


class PowerInPlace(nn.Module):
    """Squares what is read under another name, too."""

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        z = y
        z **= 2
        return F.relu(y) + z


@quiet
def test_operators_in_place_are_followed() -> None:
    images = torch.rand(6, 4)
    net = snm.convert(PowerInPlace().eval(), images)
    assert net.layers["relu"].threshold.equal(((images + 1) ** 2).amax(0))


@quiet
@pytest.mark.parametrize("norm", ["neuron", "channel", "layer"])
@pytest.mark.parametrize("name", NETWORKS)
def test_calibration_images_may_come_one_by_one(name: str, norm: str) -> None:
    model, calibration, _ = exact_network(name)
    together, alone = (
        snm.convert(model, batches, norm=norm) for batches in (calibration, calibration.split(1))
    )
    for path, neuron in together.layers.items():
        assert torch.equal(alone.layers[path].threshold, neuron.threshold)


@quiet
@pytest.mark.parametrize("preset", ["snm-half", "snm-zero", "if-half"])
@pytest.mark.parametrize("seed", range(3))
def test_approaches_the_model_as_time_goes_on(seed: int, preset: str) -> None:
    model, images = small_network(seed), torch.rand(16, 2, 8, 8)
    net = snm.convert(model, images, preset=preset)
    anytime = net.anytime(images, timesteps=512)
    with torch.no_grad():
        expected = model(images)
    error = (anytime - expected).abs().mean(dim=(1, 2))
    assert error[511] < error[31] < error[3]
    assert error[511] < 0.01 * expected.abs().mean()


@quiet
@pytest.mark.parametrize(
    ("norm", "shapes"),
    [
        ("neuron", [(8, 8, 8), (8, 4, 4)]),
        ("channel", [(8, 1, 1), (8, 1, 1)]),
        ("layer", [(), ()]),
    ],
)
def test_thresholds_are_the_largest_activations(norm: str, shapes: list[tuple[int, ...]]) -> None:
    model, images = small_network(), torch.rand(16, 2, 8, 8)
    net = snm.convert(model, images, norm=norm)
    assert list(net.layers) == ["2", "5"]
    for path, shape in zip(net.layers, shapes, strict=True):
        threshold = net.layers[path].threshold
        with torch.no_grad():
            activation = model[: int(path) + 1](images)
        assert tuple(threshold.shape) == shape
        largest = activation.amax(0)
        if norm == "channel":
            largest = largest.amax((1, 2), keepdim=True)
        elif norm == "layer":
            largest = largest.amax()
        torch.testing.assert_close(threshold, torch.where(largest > 0, largest, torch.inf))


@quiet
def test_calibration_may_come_in_any_batches() -> None:
    model, images = small_network(), torch.rand(100, 2, 8, 8)
    labels = torch.zeros(100)
    ways: list[Tensor | Iterable[object]] = [
        images,
        [images],
        iter(images.split(7)),
        [(part, "label") for part in images.split(33)],
        DataLoader(TensorDataset(images, labels), batch_size=10),
    ]
    nets = [snm.convert(model, way) for way in ways]
    for path, neuron in nets[0].layers.items():
        for net in nets[1:]:
            torch.testing.assert_close(net.layers[path].threshold, neuron.threshold)


@quiet
def test_progress_sees_every_calibration_batch() -> None:
    seen: list[int] = []

    def progress(batches: Iterable[Tensor]) -> Iterable[Tensor]:
        for batch in batches:
            seen.append(len(batch))
            yield batch

    snm.convert(small_network(), torch.rand(100, 2, 8, 8), progress=progress)
    assert seen == [64, 36]


def dead_model() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.fill_(0.5)
            layer.bias.zero_()
        model[0].bias[1] = -100
        model[2].weight[:2] = -1
    return model.eval()


def test_neurons_that_never_fired_are_counted_and_silent() -> None:
    model, images = dead_model(), torch.rand(8, 3)
    with pytest.warns(snm.DeadNeuronWarning) as caught:
        net = snm.convert(model, images)
    [warning] = caught
    assert str(warning.message) == (
        "convert: 3 of 9 neurons never fired in calibration; their threshold is +inf and they "
        "stay silent (1 1 of 4, 3 2 of 5); if that is too many, calibrate on more images"
    )
    assert warning.filename == __file__
    assert net.layers["1"].threshold.isinf().tolist() == [False, True, False, False]
    strong = torch.full((2, 3), 1e6)
    counts = []
    net.layers["1"].register_forward_hook(lambda *call: counts.append(call[2].state.m))
    for logits in (net(strong, timesteps=T), net.anytime(strong, timesteps=T)):
        assert torch.isfinite(logits).all()
    assert counts[0].tolist() == [[T, 0, T, T]] * 2


@pytest.mark.parametrize("preset", snm.PRESETS)
@pytest.mark.parametrize("norm", ["neuron", "channel", "layer"])
def test_all_neurons_dead(norm: str, preset: str) -> None:
    model = dead_model()
    with pytest.warns(snm.DeadNeuronWarning):
        net = snm.convert(model, -torch.ones(2, 3), norm=norm, preset=preset)
    assert torch.equal(net(torch.ones(1, 3), timesteps=T), model[4].bias.detach()[None])
    assert torch.isfinite(net.anytime(torch.ones(1, 3), timesteps=T)).all()


def test_no_warning_without_dead_neurons() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        snm.convert(small_network(), torch.rand(64, 2, 8, 8), norm="layer")


@quiet
def test_neurons_are_named_by_path_and_call() -> None:
    residual, branches = (
        snm.convert(exact_network(name)[0], exact_network(name)[1])
        for name in ("residual", "branches")
    )
    assert list(residual.layers) == [
        "stem.1",
        "layers.0.relu",
        "layers.0.relu_1",
        "layers.1.relu",
        "layers.1.relu_1",
    ]
    assert list(branches.layers) == ["relu", "relu_1", "relu_2"]
    assert "SNMNeuron(threshold=[3, 8, 8], silent=" in repr(residual)


@quiet
def test_batch_norms_are_folded() -> None:
    model, calibration, _ = exact_network("residual")
    net = snm.convert(model, calibration)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    net = snm.convert(*exact_network("pre-activation")[:2])
    assert sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == 2


@quiet
def test_parametrized_weights_are_baked_in() -> None:
    model = small_network()
    parametrizations.weight_norm(model[0]).eval()
    images = torch.rand(8, 2, 8, 8)
    expected = model(images)
    net = snm.convert(model, images)
    assert type(net.model.get_submodule("0")) is nn.Conv2d
    assert parametrizations.parametrize.is_parametrized(model[0])
    assert torch.equal(model(images), expected)


@quiet
def test_static_part_runs_once_and_tail_runs_once() -> None:
    calls: dict[str, list[int]] = {"0": [], "4": [], "7": []}
    net = snm.convert(small_network(), torch.rand(8, 2, 8, 8), chunk_steps=5)
    for path, seen in calls.items():
        net.model.get_submodule(path).register_forward_hook(
            lambda *call, seen=seen: seen.append(len(call[2]))
        )
    net(torch.rand(3, 2, 8, 8), timesteps=12)
    assert calls == {"0": [3], "4": [15, 15, 6], "7": [3]}


@quiet
def test_constant_drive_is_not_copied() -> None:
    net = snm.convert(small_network(), torch.rand(8, 2, 8, 8))
    strides = []
    net.layers["2"].register_forward_pre_hook(lambda _, inputs: strides.append(inputs[0].stride()))
    net(torch.rand(3, 2, 8, 8), timesteps=T)
    assert strides[0][0] == 0


@quiet
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_subtracts_what_it_sends(dtype: torch.dtype) -> None:
    model, images = small_network(), torch.rand(8, 2, 8, 8)
    net = snm.convert(model, images)
    exact = {path: neuron.threshold.clone() for path, neuron in net.layers.items()}
    net = net.to(dtype)
    totals, states = {}, {}
    for path, neuron in net.layers.items():
        assert neuron.threshold.dtype == torch.float32
        assert torch.equal(neuron.threshold, exact[path].to(dtype).float())
        assert not torch.equal(neuron.threshold, exact[path])

        def note(_neuron: nn.Module, _inputs: tuple, output: SNMOutput, path: str = path) -> None:
            if output.spikes is not None:
                assert output.spikes.dtype == dtype
                totals[path] = totals.get(path, 0) + output.spikes.double().sum(0)
            states[path] = output.state

        neuron.register_forward_hook(note)
    logits = net(images.to(dtype), timesteps=64)
    assert logits.dtype == dtype
    for path, sent in totals.items():
        v, m = states[path]
        assert (v.dtype, m.dtype) == (torch.float32, torch.int32)
        theta = torch.where(net.layers[path].threshold.isinf(), 0, net.layers[path].threshold)
        assert torch.equal(sent, theta.double() * m)
    with torch.no_grad():
        torch.testing.assert_close(logits.float(), model(images), rtol=0.1, atol=0.1)
    back = net.float()
    assert torch.equal(back.layers["2"].threshold, exact["2"].to(dtype).float())
    halved = snm.convert(model.to(dtype), images.to(dtype), statistic="percentile", percentile=90)
    for neuron in halved.layers.values():
        assert torch.equal(neuron.threshold, neuron.threshold.to(dtype).float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("most", [2, 3, 5, 7])
def test_graded_spikes_in_half_precision_subtract_what_they_send(
    most: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    threshold = torch.rand(500, generator=generator) + 0.5
    neuron = snm.nn.SNMNeuron(threshold, snm.SNMRule(max_spikes=most)).to(dtype)
    assert (neuron.threshold / threshold - 1).abs().max() < 0.07
    drive = torch.randn(64, 1, 500, generator=generator).mul(4).to(dtype)
    sent, state = neuron(drive)
    counts, _ = neuron(drive, emit="spike")
    assert counts.max() == most
    assert torch.equal(sent.double(), counts.double() * neuron.threshold.double())
    assert torch.equal(sent.double().sum(0), state.m.double() * neuron.threshold.double())


@quiet
def test_a_network_without_parameters_has_the_dtype_of_its_images() -> None:
    images = torch.rand(4, 3, 8, 8, dtype=torch.bfloat16)
    model = nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()).eval()
    net = snm.convert(model, images)
    assert net(images, timesteps=4).dtype == torch.bfloat16
    assert net.float()(images.float(), timesteps=4).dtype == torch.float32


@quiet
def test_a_refused_move_leaves_the_network_as_it_was() -> None:
    images = torch.rand(8, 2, 8, 8)
    net = snm.convert(small_network(), images)
    expected = net(images, timesteps=4)
    net.layers["5"].threshold[0] = 1e-12
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"must be > 0 and finite in torch\.float16"):
        net.half()
    with pytest.raises(TypeError, match="must be one of float32, float16, bfloat16, got float64"):
        net.double()
    after = net.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert net(images, timesteps=4).dtype == expected.dtype


@pytest.mark.parametrize("threshold", [1e5, 1e-9])
def test_a_threshold_that_half_precision_cannot_hold_is_refused(threshold: float) -> None:
    neuron = snm.nn.SNMNeuron(torch.tensor([1.0, threshold, torch.inf]))
    with pytest.raises(ValueError, match=r"must be > 0 and finite in torch\.float16"):
        neuron.half()
    assert neuron.threshold[1] == torch.tensor(threshold)
    assert neuron.bfloat16().threshold.isinf().tolist() == [False, False, True]


@quiet
@pytest.mark.parametrize("name", NETWORKS)
def test_network_can_be_copied(name: str) -> None:
    model, calibration, images = exact_network(name)
    net = snm.convert(model, calibration)
    assert torch.equal(copy.deepcopy(net)(images, timesteps=T), net(images, timesteps=T))


@quiet
@pytest.mark.parametrize("model", [Residual, PreActivation])
def test_network_survives_pickling_and_state_dict(model: type[nn.Module]) -> None:
    images = torch.rand(4, 2, 8, 8)
    net = snm.convert(model().eval(), images)
    expected = net(images, timesteps=T)
    saved = io.BytesIO()
    torch.save(net, saved)
    saved.seek(0)
    for other in (pickle.loads(pickle.dumps(net)), torch.load(saved, weights_only=False)):
        assert torch.equal(other(images, timesteps=T), expected)
    other = snm.convert(model().eval(), torch.rand(4, 2, 8, 8))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(images, timesteps=T), expected)


@quiet
def test_results_need_no_gradient() -> None:
    images = torch.rand(4, 2, 8, 8, requires_grad=True)
    net = snm.convert(small_network(), images)
    assert not net(images, timesteps=2).requires_grad
    assert not any(parameter.requires_grad for parameter in net.parameters())


@quiet
def test_max_pooling_counts_spikes_behind_neurons() -> None:
    model, calibration, images = exact_network("pooled")
    net = snm.convert(model, calibration)
    pools = [step for step in net.program.temporal if isinstance(step, RunningMax)]
    assert [len(step.fires) for step in pools] == [1, 2, 0, 0, 0]
    assert pools[0].path == "pool"
    assert "running maximum" in tree(net.origin, net.model, [pools[0].path])
    by_name = {fire.name: fire for fire in net.program.neurons}
    assert not by_name[pools[0].fires[0]].sends
    assert all(by_name[name].sends and by_name[name].pooled for name in pools[1].fires)
    assert net(images, timesteps=4).shape == (3, 5)


@quiet
def test_trees_are_shown_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(
        *(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout()),
        *(Residual(), nn.Flatten()),
    )
    model[5].stem = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    net = snm.convert(model.eval(), torch.rand(4, 2, 24, 24), norm="channel")
    net.print_tree()
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "SNM, 3×1×1 thresholds" in lines["2"]
    assert lines["1"].endswith("-")
    assert lines["3"].endswith("running maximum")
    assert "a call of ReLU" in lines["5.layers.0.relu_1"]
    assert lines["5.head"].endswith("kept")


@quiet
def test_neurons_add_the_residual_themselves() -> None:
    model, calibration, _ = exact_network("residual")
    fires = snm.convert(model, calibration).program.neurons
    assert [fire.residual is not None for fire in fires] == [False, False, True, False, True]


class ConstantShortcut(nn.Module):
    """A sum of what changes over time and what the image alone makes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(192, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.relu(x + self.conv(F.relu(x))).flatten(1))


@quiet
def test_a_residual_that_is_constant_in_time_is_not_copied_over_it() -> None:
    model, images = exact(ConstantShortcut()), exact_images(3)
    net = snm.convert(model, images, preset="snm-half")
    assert [type(step).__name__ for step in net.program.temporal] == ["Fire", "Call", "Fire"]
    last = net.program.neurons[-1]
    assert (last.constant_residual, last.reuses_drive) == (True, True)
    thresholds = naive_thresholds(model, images, "neuron")
    naive = simulate_naively(model, images, thresholds, snm.preset("snm-half"), T)
    assert torch.equal(net(images, timesteps=T), naive.currents.sum(0) / T)

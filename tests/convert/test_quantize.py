"""Networks become networks of integers that answer nearly the same, or are refused by name."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm
from snm.network.relu import relu_pass
from snm.nn.integer import SILENT, IntegerConv, IntegerNeuron, IntegerReadout, Pixels
from support.networks import NETWORKS, exact_network

T = 64
CLOSE = 0.025
"""How far answers at T = 64 may be from those in floating point, in parts of the largest; the
farthest that was measured is 0.017."""
RELU_CLOSE = 0.015
"""The same of the networks with ReLUs, whose farthest is 0.012."""

REFUSED = {
    "pre-activation": [
        "what comes behind the last neurons reads the images, which are no spikes",
        "conv3: Conv2d: thresholds differ within a channel",
    ],
    "branches": ["max_pool2d: max_pool2d: it has no integer form"],
    "arithmetic": [
        "up: ConvTranspose2d: it has no integer form",
        "mul: mul: it reads a constant, which has no unit",
        "getitem: getitem: it reads one of the parts that an operation made",
        "sum_1: sum: it has no integer form",
    ],
    "mutated identity": ["imul: mul: it has no integer form"],
    "pooled": [
        "max_pool2d_1: max pooling: it pools what is no spikes",
        "end: AdaptiveMaxPool2d: it has no integer form",
    ],
    "shuffled": ["getitem: getitem: it reads one of the parts that an operation made"],
    "transposed": [
        "einsum: einsum: it has no integer form",
        "view: sum: sums of several units lie within one channel",
    ],
    "conv3d": ["0: Conv3d: it has no integer form", "4: Conv3d: it has no integer form"],
}
"""What the error names, of the networks that are refused."""


def converted(model: nn.Module, calibration: Tensor, **options: Any) -> snm.SpikingNetwork:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", snm.DeadNeuronWarning)
        return snm.convert(
            model, calibration, **{"norm": "channel", "preset": "snm-zero"} | options
        )


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in REFUSED])
def test_answers_are_close_to_those_in_floating_point(name: str) -> None:
    model, calibration, images = exact_network(name)
    for preset in ("snm-zero", "snm"):
        net = converted(model, calibration, preset=preset)
        integers = snm.quantize(net, calibration)
        _, exact = relu_pass(net, images)
        _, rounded = relu_pass(integers, images)
        largest = exact.abs().max()
        if name != "read behind":  # some of its ReLUs are neurons that stay silent
            assert (exact - rounded).abs().max() < RELU_CLOSE * largest
        difference = net(images, timesteps=T) - integers(images, timesteps=T)
        assert difference.abs().max() < CLOSE * largest
        assert list(integers.layers) == list(net.layers)


@pytest.mark.parametrize("name", REFUSED)
def test_all_that_has_no_integer_form_is_named(name: str) -> None:
    model, calibration, _ = exact_network(name)
    net = converted(model, calibration)
    with pytest.raises(snm.ConversionError, match=r"^quantize: \d operations? cannot") as error:
        snm.quantize(net, calibration)
    for reason in REFUSED[name]:
        assert reason in str(error.value)


def test_other_reasons_are_named_with_a_tail_of_images() -> None:
    model, calibration, _ = exact_network("branches")
    net = converted(model, calibration, encoder="frames")
    with pytest.raises(snm.ConversionError) as error:
        snm.quantize(net, calibration)
    assert "reads the images, which are no spikes" in str(error.value)
    assert "max_pool2d" in str(error.value)


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_have_so_many_bits(bits: int) -> None:
    model, calibration, _ = exact_network("plain")
    integers = snm.quantize(converted(model, calibration), calibration, bits=bits)
    most = 2 ** (bits - 1) - 1
    sizes = [
        int(layer.weight.abs().max())
        for layer in integers.modules()
        if isinstance(layer, IntegerConv)
    ]
    assert max(sizes) == most


def test_everything_between_pixels_and_logits_is_an_integer() -> None:
    model, calibration, images = exact_network("residual")
    integers = snm.quantize(converted(model, calibration), calibration)
    for path, tensor in integers.model.named_buffers():
        owner = integers.model.get_submodule(path.rpartition(".")[0])
        if isinstance(owner, Pixels | IntegerReadout):
            assert tensor.dtype == torch.float64
        else:
            assert tensor.dtype in (torch.int8, torch.int32)
    assert not list(integers.parameters())

    class Drives(snm.Observer):
        def asks(self, fire: Any) -> tuple[Any, ...]:  # noqa: ARG002
            return ("drive",)

        def see(self, launch: snm.Launch) -> None:
            assert launch.drive is not None
            assert launch.drive.dtype == launch.after.v.dtype == torch.int32

    integers.simulation(images, timesteps=3, observers=[Drives()]).answer()


def test_silent_neurons_stay_silent() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    nn.init.constant_(model[0].bias[:2], -9.0)
    images = torch.rand(16, 4)
    net = converted(model, images)
    integers = snm.quantize(net, images)
    neuron = integers.layers["1"]
    assert isinstance(neuron, IntegerNeuron)
    assert torch.equal(neuron.silent, net.layers["1"].silent)
    assert int((neuron.threshold == SILENT).sum()) == int(neuron.silent.sum()) >= 2


def test_outputs_that_read_nothing_keep_their_bias() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    with torch.no_grad():
        model[2].weight[1] = 0.0
        model[2].bias[1] = 0.375
    images = torch.rand(16, 4)
    integers = snm.quantize(converted(model, images), images)
    assert torch.equal(integers(images, timesteps=5)[:, 1], torch.full((16,), 0.375))


def test_thresholds_of_each_neuron_before_linear_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 8), nn.ReLU()),
        nn.Linear(8, 3),
    ).eval()
    images = torch.rand(32, 1, 6, 6)
    net = converted(model, images, norm="neuron")
    integers = snm.quantize(net, images)
    # The neurons of a channel share its unit.
    assert integers.layers["1"].threshold.shape == (3, 4, 4)
    difference = net(images, timesteps=T) - integers(images, timesteps=T)
    assert difference.abs().max() < CLOSE * net(images, timesteps=T).abs().max()


def test_thresholds_of_each_neuron_before_convolutions_are_refused() -> None:
    model, calibration, _ = exact_network("plain")
    net = converted(model, calibration, norm="neuron")
    with pytest.raises(snm.ConversionError, match=r"convert with norm='channel' or 'layer'$"):
        snm.quantize(net, calibration)
    layer = converted(model, calibration, norm="layer")
    assert snm.quantize(layer, calibration).integers


def standardised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (pixels / 255 - mean[:, None, None]) / std[:, None, None]


def test_pixels_are_found_again() -> None:
    torch.manual_seed(1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = torch.randint(0, 256, (16, 3, 6, 6), dtype=torch.uint8)
    images = standardised(pixels, mean, std)
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
    ).eval()
    net = converted(model, images)
    integers = snm.quantize(net, images, pixels=(mean.tolist(), std.tolist()))
    found = integers.digest(pixels, timesteps=8)
    assert integers.digest(images, timesteps=8) == found
    # Elsewhere the last bits of images may be others.
    assert integers.digest(images * (1 + 1e-6), timesteps=8) == found
    _, exact = relu_pass(net, images)
    _, rounded = relu_pass(integers, images)
    assert (exact - rounded).abs().max() < RELU_CLOSE * exact.abs().max()
    with pytest.raises(TypeError, match="images must be float32 like the network, got uint8"):
        net(pixels, timesteps=2)
    without = snm.quantize(net, images)
    with pytest.raises(TypeError, match="images must be float32 like the network, got uint8"):
        without(pixels, timesteps=2)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, -1.0), (5.0, 6.0), (0.25, 0.25)])
def test_ranges_away_from_zero_are_not_cut_off(low: float, high: float) -> None:
    images = low + (high - low) * torch.rand(32, 4)
    pixels = snm.quantize(small_network(images), images).model.get_submodule("pixels")
    assert isinstance(pixels, Pixels)
    steps = pixels(images)
    assert steps.abs().max() < 2**9
    assert torch.allclose(steps * pixels.step, images.double(), atol=max(abs(low), abs(high)) / 255)


def test_images_far_out_are_cut_off() -> None:
    images = torch.rand(32, 4)
    integers = snm.quantize(small_network(images), images)
    far, farther = (integers(torch.full((1, 4), size), timesteps=8) for size in (1e3, 1e30))
    assert torch.equal(far, farther)


def small_network(images: Tensor, **options: Any) -> snm.SpikingNetwork:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    return converted(model, images, **options)


@pytest.mark.parametrize("per_neuron", [False, True])
def test_biases_of_tuned_neurons_are_taken_over(per_neuron: bool) -> None:
    model, calibration, images = exact_network("plain")
    net = converted(model, calibration)
    _, before = relu_pass(net, images)
    neuron = net.layers["2"]
    size = (4, 8, 8) if per_neuron else (4, 1, 1)
    neuron.bias = torch.linspace(-0.5, 0.5, 4).view(4, 1, 1).expand(size) * neuron.threshold
    net.tuned_for, net.tuning = 5, "by hand"
    integers = snm.quantize(net, calibration)
    assert (integers.tuned_for, integers.tuning) == (5, "by hand")
    assert integers.layers["2"].bias.shape == size
    difference = net(images, timesteps=5) - integers(images, timesteps=5)
    assert difference.abs().mean() < CLOSE * before.abs().max()
    with pytest.warns(UserWarning, match="were tuned for 5 time steps"):
        integers(images, timesteps=9)


class Functional(nn.Module):
    """Convolutions and linear layers that are functions."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 1, 3, 3) - 0.5)
        self.head = nn.Parameter(torch.rand(3, 64) - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.weight, None, 2, padding=(1, 1)))
        return F.linear(x.flatten(1), self.head)


def test_functions_are_layers_too() -> None:
    torch.manual_seed(3)
    images = torch.rand(16, 1, 8, 8)
    net = converted(Functional().eval(), images)
    integers = snm.quantize(net, images)
    difference = net(images, timesteps=T) - integers(images, timesteps=T)
    assert difference.abs().max() < CLOSE * net(images, timesteps=T).abs().max()


def test_more_steps_than_int32_holds_are_refused() -> None:
    images = torch.rand(8, 4)
    net = snm.quantize(small_network(images), images)
    most = min(n.most_steps for n in net.layers.values() if isinstance(n, IntegerNeuron))
    message = f"timesteps must be at most {most}, within which no membrane leaves int32"
    with pytest.raises(ValueError, match=message):
        net(images, timesteps=most + 1)
    for neuron in net.layers.values():
        assert isinstance(neuron, IntegerNeuron)
        neuron.most_steps = 3
    for _ in range(3):
        answer = net.step(images)
    assert torch.equal(answer, net(images, timesteps=3))
    with pytest.raises(ValueError, match=r"at most 3, .*, got 4; start afresh, or call reset"):
        net.step(images)
    net.reset()
    net.step(images)


def sized(*behind: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *behind).eval()


def test_images_of_another_size() -> None:
    images, others = torch.rand(16, 1, 8, 8), torch.rand(2, 1, 12, 10)
    net = converted(
        sized(nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1)), images
    )
    integers = snm.quantize(net, images)
    expected = net(others, timesteps=T)
    assert (integers(others, timesteps=T) - expected).abs().max() < CLOSE * expected.abs().max()
    for pool in (nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(4)):
        net = converted(sized(pool, nn.Conv2d(4, 3, 1)), images)
        integers = snm.quantize(net, images)
        net(others, timesteps=2)
        with pytest.raises(ValueError, match=r"\[1, 8, 8\] each, for which it was quantized, got"):
            integers(others, timesteps=2)
    with pytest.raises(ValueError, match=r"images of \[1, 8, 8\] each, as those of the conversion"):
        snm.quantize(net, others)


def test_spikes_that_drive_neurons_as_they_are() -> None:
    model = sized(nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
    nn.init.constant_(model[0].bias[:1], -9.0)
    images = torch.rand(16, 1, 8, 8)
    net = converted(model, images)
    assert bool(net.layers["2"].silent.any())
    integers = snm.quantize(net, images)
    expected = net(images, timesteps=T)
    assert (integers(images, timesteps=T) - expected).abs().max() < CLOSE * expected.abs().max()


def test_pixels_of_random_spikes_are_refused() -> None:
    images = torch.rand(16, 4)
    net = small_network(images, encoder="poisson")
    integers = snm.quantize(net, images, pixels=([0.0], [1.0]))
    with pytest.raises(TypeError, match="images must be float32 like the network, got uint8"):
        integers((images * 255).to(torch.uint8), timesteps=4)


def test_drives_that_int32_cannot_hold_are_refused() -> None:
    images = torch.rand(8, 4)
    net = small_network(images)
    net.layers["1"].bias = torch.full((8,), 1e9) * net.layers["1"].threshold
    with pytest.raises(snm.ConversionError, match="what drives them could leave int32 within 8"):
        snm.quantize(net, images)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"bits": 1}, ValueError, "bits must be 2 to 8, got 1"),
        ({"bits": 9}, ValueError, "bits must be 2 to 8, got 9"),
        ({"bits": True}, TypeError, "bits must be an integer, got True"),
        ({"bits": 8.0}, TypeError, "bits must be an integer, got 8.0"),
        ({"calibration": torch.rand(0, 4)}, ValueError, "calibration must hold at least one image"),
        ({"calibration": []}, ValueError, "calibration must hold at least one image, got none"),
        ({"calibration": torch.rand(3, 4, 4)}, ValueError, "images must have 2 dimensions"),
        ({"calibration": 3}, TypeError, "calibration must"),
        ({"pixels": ([0.5] * 3, [0.5] * 3)}, ValueError, "mean and std of 4 channels, got"),
        ({"pixels": ([0.5], [0.0])}, ValueError, "pixels must have std > 0, got"),
        ({"pixels": 0.5}, TypeError, "pixels must be the mean and the std of each channel"),
        ({"pixels": ("a", "b")}, TypeError, "pixels must be the mean and the std of each channel"),
        ({"net": nn.ReLU()}, TypeError, "net must be a SpikingNetwork, got ReLU"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_bad_arguments_are_refused(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    images = torch.rand(8, 4)
    arguments = {"net": small_network(images), "calibration": images} | given
    net, calibration = arguments.pop("net"), arguments.pop("calibration")
    with pytest.raises(error, match=f"{message}"):
        snm.quantize(net, calibration, **arguments)


def test_a_network_of_integers_is_refused() -> None:
    images = torch.rand(8, 4)
    net = snm.quantize(small_network(images), images)
    with pytest.raises(ValueError, match="net is a network of integers already"):
        snm.quantize(net, images)


def test_batches_and_progress() -> None:
    images = torch.rand(12, 4)
    net = small_network(images)
    seen = []

    def progress(batches: Any) -> Any:
        for batch in batches:
            seen.append(len(batch))
            yield batch

    integers = snm.quantize(net, [images[:5], images[5:5], images[5:]], progress=progress)
    assert seen
    whole = snm.quantize(net, images)
    assert whole.digest(images, timesteps=8) == integers.digest(images, timesteps=8)


def test_the_network_is_not_changed() -> None:
    model, calibration, images = exact_network("residual")
    net = converted(model, calibration)
    net.preprocessing = "{}"
    before = net.digest(images, timesteps=8)
    integers = snm.quantize(net, calibration)
    assert net.digest(images, timesteps=8) == before
    assert not net.integers
    assert integers.preprocessing == "{}"


class Traced(nn.Module):
    """Layers for a forward of its own."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.one, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.run(self, x)
        return made


def _changed(change: Any) -> Any:
    return lambda model, x: model.linear(model.relu1(model.first(change(x))).mean([2, 3]))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (_changed(torch.round), "round_1: round: it has no integer form"),
        (_changed(torch.square), "square: square: it has no integer form"),
    ],
)
def test_what_would_send_other_spikes_is_refused(forward: Any, message: str) -> None:
    images = torch.rand(16, 1, 8, 8)
    with pytest.raises(snm.ConversionError, match=message):
        snm.quantize(converted(Traced(forward).eval(), images), images)


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(4), nn.AvgPool2d(1)])
def test_averages_over_one_place(pool: nn.Module) -> None:
    images = torch.rand(16, 1, 4, 4)
    net = converted(sized(pool, nn.Flatten(), nn.Linear(64, 3)), images)
    expected = net(images, timesteps=T)
    difference = expected - snm.quantize(net, images)(images, timesteps=T)
    assert difference.abs().max() < CLOSE * expected.abs().max()


def test_modules_may_have_the_names_of_new_ones() -> None:
    images = torch.rand(16, 1, 4, 4)
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("pixels", nn.Flatten())
    layers = (nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    model.add_module("readout", nn.Sequential(*layers))
    net = converted(model.eval(), images)
    expected = net(images, timesteps=T)
    difference = expected - snm.quantize(net, images)(images, timesteps=T)
    assert difference.abs().max() < CLOSE * expected.abs().max()


def test_logits_that_float64_cannot_hold_are_refused() -> None:
    images = torch.rand(8, 16)
    torch.manual_seed(0)
    behind = [nn.Linear(64, 64, bias=False) for _ in range(5)]
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), *behind)
    with pytest.raises(
        snm.ConversionError, match=r"6: IntegerLinear: its sums could leave 2\*\*53"
    ):
        snm.quantize(converted(model.eval(), images), images)
    net = snm.quantize(converted(model[:-1].eval(), images), images)
    layer = net.model.get_submodule("5")
    assert isinstance(layer, IntegerConv)
    with pytest.raises(ValueError, match=f"at most {layer.exact_steps}, .* logits are exact"):
        net(images, timesteps=layer.exact_steps + 1)


def test_pixels_far_out_are_cut_off() -> None:
    pixels = Pixels(torch.ones(1).double(), torch.tensor([30000.0]).double())
    assert pixels(torch.tensor([[7]], dtype=torch.uint8)).item() == -512

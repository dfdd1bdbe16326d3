"""What cannot be converted is listed with its place, its reason and what would help."""

import copy
import inspect
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import snm
from snm import ConversionError, Convertibility, Offence
from support.networks import exact, exact_images, exact_network
from support.zoo import published

IMAGES = torch.rand(3, 2, 8, 8)
ONLY_RELU = "only ReLU has a spiking neuron; train or fine-tune the model with ReLU"
NORMALISES = "divides by a statistic of its own input, which changes at every step"

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


class Between(nn.Module):
    """An operation between two ReLUs."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.operation = nn.Conv2d(2, 4, 3, padding=1), operation

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.operation(F.relu(self.conv(x))))


class SqueezeAndExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))
        return x * gate


def line_of(function: Callable[..., object], text: str) -> str:
    """File and number of the line of a function's source that holds a text."""
    lines, first = inspect.getsourcelines(function)
    [at] = [number for number, line in enumerate(lines) if text in line]
    return f"test_convertible.py:{first + at}"


def test_gate_is_refused_with_its_lines() -> None:
    forward = SqueezeAndExcitation.forward
    report = snm.convertible(Between(SqueezeAndExcitation()).eval(), IMAGES)
    assert not report
    assert report.offences == (
        Offence(
            "operation",
            "sigmoid",
            "only ReLU has a spiking neuron; a gate, such as that of squeeze-and-excitation, has "
            "to be left out and the model fine-tuned",
            line_of(forward, "sigmoid"),
        ),
        Offence(
            "operation",
            "mul",
            "multiplies two values that both change over time; a gate, such as that of "
            "squeeze-and-excitation or attention, has to be left out and the model fine-tuned",
            line_of(forward, "x * gate"),
        ),
    )
    assert f"operation: mul ({line_of(forward, 'x * gate')}): multiplies" in str(report)


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (nn.LeakyReLU(), ONLY_RELU),
        (nn.PReLU(), ONLY_RELU),
        (F.gelu, ONLY_RELU),
        (nn.SiLU(inplace=True), ONLY_RELU),
        (nn.Hardswish(), ONLY_RELU),
        (nn.Threshold(1, 0), ONLY_RELU),
        (nn.Hardtanh(), "clips to [-1.0, 1.0]; a spiking neuron clips to [0, inf] or [0, number]"),
        (lambda x: F.hardtanh(x, 0.5, 2), "clips to [0.5, 2]"),
        (lambda x: x.clamp(max=6), "clips to [-inf, 6]"),
        (lambda x: torch.clamp(x, -1, 0), "clips to [-1, inf]"),
        (nn.LayerNorm(8), NORMALISES + "; batch normalisation is known"),
        (nn.GroupNorm(2, 4), NORMALISES + "; batch normalisation is known"),
        (nn.LocalResponseNorm(2), NORMALISES),
        (F.normalize, NORMALISES),
        (nn.Softmax(1), "divides by a sum of what changes over time"),
        (nn.LPPool2d(2, 2), "takes powers; average and max pooling are known"),
        (nn.FractionalMaxPool2d(2, output_size=2), "pools at random"),
        (
            lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
            "hands out or reads the indices of maxima; only the maxima themselves are known",
        ),
        (lambda x: F.max_pool2d(x.flatten(2), 2), "and pools over the channels too"),
        (lambda x: F.adaptive_max_pool1d(x.mean((2, 3)), 2), "and pools over the channels too"),
        (lambda x: x.amax((2, 3)), "takes a maximum or minimum; only max pooling is known"),
        (lambda x: x.flatten(2).max(-1).values, "takes a maximum or minimum"),
        (lambda x: x.double().float(), "computes in another dtype"),
        (lambda x: x.sum(1, dtype=torch.float64), "computes in another dtype"),
        (lambda x: F.batch_norm(x, None, None, training=True), "has no running statistics"),
        (lambda x: x.narrow(0, 0, x.size(0)), "picks from the batch"),
        (lambda x: x.unbind(0)[0], "splits the batch"),
    ],
)
def test_operation_is_refused_with_a_reason_that_helps(
    operation: Callable[[Tensor], Tensor], reason: str
) -> None:
    report = snm.convertible(Between(operation).eval(), IMAGES)
    assert any(reason in offence.reason for offence in report.offences), str(report)
    assert all(offence.line.startswith("test_convertible.py:") for offence in report.offences)


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (nn.Softmax(1), "is not affine; leave it off, the largest logit stays the largest"),
        (nn.LogSoftmax(1), "is not affine; leave it off, the largest logit stays the largest"),
        (nn.Sigmoid(), "is not affine; leave it off and apply it to the logits"),
        (nn.GELU(), ONLY_RELU),
    ],
)
def test_what_comes_last_may_be_left_off(last: nn.Module, reason: str) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), last).eval()
    assert snm.convertible(model).offences == (Offence("3", type(last).__name__, reason),)


def test_network_without_relu_lists_its_activations() -> None:
    pooling = nn.Sequential(nn.Unflatten(1, (4, 2)), nn.MaxPool1d(2), nn.Flatten())
    layers = (nn.Linear(4, 8), nn.GELU(), pooling, nn.LayerNorm(4), nn.SiLU())
    model = nn.Sequential(*layers).eval()
    *operations, none = snm.convertible(model).offences
    assert [offence.operation for offence in operations] == ["GELU", "LayerNorm", "SiLU"]
    assert none.reason.startswith("no ReLU lies between")


@fx.wrap
def doubled_outside(x: Tensor) -> Tensor:
    return x + x


@fx.wrap
def hidden_gelu(x: Tensor) -> Tensor:
    return F.gelu(x)


def test_functions_that_torch_fx_does_not_look_into() -> None:
    images = exact_images(3)
    outside = snm.convert(exact(Between(lambda x: doubled_outside(x))), images)
    inside = snm.convert(exact(Between(lambda x: x + x)), images)
    assert torch.equal(outside(images, timesteps=4), inside(images, timesteps=4))
    [offence] = snm.convertible(Between(lambda x: hidden_gelu(x)).eval(), IMAGES).offences
    assert (offence.operation, offence.reason) == ("gelu", ONLY_RELU)
    assert offence.line == line_of(Between.forward, "self.operation")


@pytest.mark.parametrize(
    "build",
    [
        lambda: import_module("torchvision.ops").StochasticDepth(0.5, "row"),
        lambda: import_module("timm.layers").DropPath(0.5),
    ],
    ids=["torchvision", "timm"],
)
def test_stochastic_depth_does_nothing_in_evaluation(build: Callable[[], nn.Module]) -> None:
    published("resnet18")
    model, without = exact(Between(build())), exact(Between(nn.Identity()))
    images = exact_images(3)
    expected = snm.convert(without, images)(images, timesteps=4)
    assert torch.equal(snm.convert(model, images)(images, timesteps=4), expected)


def test_tensor_made_for_the_size_of_the_batch() -> None:
    images = exact_images(3)
    model = exact(Between(lambda x: torch.cat([x, torch.ones(x.size(0), 2, 8, 8)], 1)))
    simplest = exact(Between(lambda x: F.pad(x, (0, 0, 0, 0, 0, 2), value=1.0)))
    expected = snm.convert(simplest, images)(images, timesteps=4)
    assert torch.equal(snm.convert(model, images)(images, timesteps=4), expected)


class Meanwhile(nn.Module):
    """Does some work while it is traced; on a branch torch.fx cannot follow it."""

    def __init__(self, work: Callable[[object], object], branch: bool = False) -> None:
        super().__init__()
        self.work, self.branch = work, branch

    def forward(self, x: Tensor) -> Tensor:
        self.work(x)
        return x * 2 if self.branch and x.shape[1] > 1 else x


@pytest.mark.parametrize("tracer", ["torch.fx", "torch.export"])
def test_other_threads_run_while_a_model_is_traced(tracer: str) -> None:
    model, calibration, images = exact_network("plain")
    net = snm.convert(model, calibration)
    results: list[Tensor | Exception] = []

    def run() -> None:
        try:
            results.append(net(images, timesteps=4))
        except Exception as error:
            results.append(error)

    def work(_x: object) -> None:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    traced = Between(Meanwhile(work, branch=tracer == "torch.export")).eval()
    assert snm.convertible(traced, IMAGES).tracer == tracer
    expected = net(images, timesteps=4)
    assert len(results) > 2
    for result in results:
        assert isinstance(result, Tensor), repr(result)
        assert torch.equal(result, expected)


def test_threads_that_trace_at_once() -> None:
    call = nn.Module.__call__
    second_began, first_ended = threading.Event(), threading.Event()
    reports: list[Convertibility] = []

    def wait(x: object) -> None:
        if isinstance(x, fx.Proxy):
            second_began.set()
            first_ended.wait(10)

    second = Between(Meanwhile(wait)).eval()
    thread = threading.Thread(target=lambda: reports.append(snm.convertible(second, IMAGES)))

    def work(x: object) -> None:
        if isinstance(x, fx.Proxy):
            thread.start()
            second_began.wait(1)

    assert snm.convertible(Between(Meanwhile(work)).eval(), IMAGES)
    first_ended.set()
    thread.join()
    assert reports == [Convertibility("torch.fx", ())]
    assert nn.Module.__call__ is call


class Doubling(nn.Module):
    """Does more to tensors than to what stands for them in torch.fx."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if isinstance(x, Tensor) else x


def test_graph_that_computes_something_else_is_replaced() -> None:
    report = snm.convertible(Between(Doubling()).eval(), IMAGES)
    assert (report.ok, report.tracer) == (True, "torch.export")


class Branch(nn.Module):
    def __init__(self, taken: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.taken = taken

    def forward(self, x: Tensor) -> Tensor:
        return x if self.taken(x) else -x


@pytest.mark.parametrize(
    ("taken", "reason"),
    [
        (lambda x: x.sum() > 0, "a branch, a loop or a size depends on the values of a tensor"),
        (lambda x: len(x) == 2, "another number of images is treated otherwise"),
    ],
)
def test_what_cannot_be_followed_is_refused_once(
    taken: Callable[[Tensor], object], reason: str
) -> None:
    with pytest.raises(ConversionError) as caught:
        snm.convert(Between(Branch(taken)).eval(), IMAGES)
    [offence] = caught.value.offences
    assert (offence.path, offence.operation) == ("operation", "forward")
    assert "cannot be followed: torch.fx fails (" in offence.reason
    assert f"torch.export fails ({reason}); forward may branch on the sizes" in offence.reason
    assert offence.line.startswith("test_convertible.py:")


SILENT = """
import torch, snm
from torch import nn

class Branch(nn.Module):
    def forward(self, x):
        return x.relu() if x.sum() > 0 else x

class Shape(nn.Module):
    def forward(self, x):
        return x.relu() if x.shape[1] > 2 else x

assert not snm.convertible(Branch().eval(), torch.rand(2, 3))
assert snm.convertible(Shape().eval(), torch.rand(2, 3))
"""


def test_tracing_says_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_tracing_warns_of_nothing_and_draws_no_random_number() -> None:
    model, images = published("control flow")
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert snm.convertible(model, images)
        assert snm.convertible(model)
    assert torch.equal(torch.get_rng_state(), state)


def test_model_is_left_alone() -> None:
    model, images = published("padded shortcut")
    state, given = copy.deepcopy(model.state_dict()), images.clone()
    modules = list(model.modules())
    assert snm.convertible(model, images)
    assert list(model.modules()) == modules
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(images, given)


@pytest.mark.parametrize("name", ["padded shortcut", "one dimension", "control flow", "resnet18"])
def test_images_are_found_for_a_model(name: str) -> None:
    assert snm.convertible(published(name)[0])


def test_no_image_size_fits() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7, 2)).eval()
    message = r"convertible: images must be given for this model, which fails on those of \[3, 224"
    with pytest.raises(ValueError, match=message):
        snm.convertible(model)
    with pytest.raises(ValueError, match=r"must be given for this model, in which no layer"):
        snm.convertible(nn.ReLU().eval())


def test_bad_arguments() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"the model is in training mode"):
        snm.convertible(model, torch.rand(2, 4))
    with pytest.raises(ValueError, match="images must hold at least one image, got none"):
        snm.convertible(model.eval(), torch.rand(0, 4))
    with pytest.raises(TypeError, match="images must be float32 like the model, got float64"):
        snm.convertible(model, torch.rand(2, 4).double())


def test_torchscript_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(model, torch.rand(1, 4))
    with pytest.raises(TypeError, match="a TorchScript module, whose inside cannot be followed"):
        snm.convertible(scripted)


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        nn.SyncBatchNorm.convert_sync_batchnorm,
        torch.compile,
        fx.symbolic_trace,
    ],
)
def test_wrapped_models_are_converted_as_they_are(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    model, images = published("padded shortcut")
    expected = snm.convert(model, images)(images, timesteps=2)
    assert torch.equal(snm.convert(wrap(model).eval(), images)(images, timesteps=2), expected)


class ToldItsSize(nn.Module):
    """A transposed convolution told the size of what it returns."""

    def __init__(self, branch: bool) -> None:
        super().__init__()
        self.branch = branch
        self.up = nn.ConvTranspose2d(4, 3, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        size = [18, 18] if self.branch and x.shape[-1] > 2 else (18, 18)
        return self.up(x, output_size=size)


@pytest.mark.parametrize(("branch", "tracer"), [(False, "torch.fx"), (True, "torch.export")])
def test_arguments_of_a_module_are_kept(branch: bool, tracer: str) -> None:
    model, images = exact(Between(ToldItsSize(branch))), exact_images(3)
    assert snm.convertible(model, images).tracer == tracer
    assert snm.convert(model, images)(images, timesteps=2).shape == (3, 3, 18, 18)


class WritesItsWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data.add_(1)
        return F.relu(x * self.weight)


def test_model_that_changes_itself_is_left_alone() -> None:
    model = WritesItsWeight().eval()
    assert not snm.convertible(model, torch.rand(2, 4))
    assert model.weight.item() == 0


def test_report() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    report = snm.convertible(model, torch.rand(1, 4))
    assert report == Convertibility("torch.fx", ())
    assert str(report) == "convertible, followed by torch.fx"

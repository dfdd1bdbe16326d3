"""Every bad input to conversion and simulation is refused by name."""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm
from snm import ConversionError

IMAGES = torch.rand(4, 2, 8, 8)

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


class Function(nn.Module):
    """A ReLU layer, and behind it ``function`` and another one."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.relu, self.function = nn.Conv2d(2, 4, 3), nn.ReLU(), function

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(self.relu(self.conv(x)))
        return F.relu(y) if isinstance(y, Tensor) else y.relu()


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 3)
    ).eval()


def offences_of(model: nn.Module, images: Tensor = IMAGES) -> list[tuple[str, str, str]]:
    with pytest.raises(ConversionError) as caught:
        snm.convert(model.eval(), images)
    return [tuple(offence[:3]) for offence in caught.value.offences]


def test_every_offence_is_listed_at_once() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.LPPool2d(2, 2)),
        nn.Conv2d(4, 4, 3),
        nn.LeakyReLU(),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(4, 3),
        nn.Softmax(dim=1),
    )
    with pytest.raises(ConversionError) as caught:
        snm.convert(model.eval(), IMAGES)
    assert str(caught.value) == "\n  ".join(
        [
            "convert: 4 operations cannot be converted:",
            "0.2: LPPool2d: takes powers; average and max pooling are known",
            "2: LeakyReLU: only ReLU has a spiking neuron; train or fine-tune the model with ReLU",
            "3: GELU: only ReLU has a spiking neuron; train or fine-tune the model with ReLU",
            "6: Softmax: is not affine; leave it off, the largest logit stays the largest",
        ]
    )


@pytest.mark.parametrize(
    ("function", "operation", "reason"),
    [
        (torch.sigmoid, "sigmoid", "only ReLU"),
        (lambda x: F.silu(x), "silu", "only ReLU"),
        (lambda x: F.layer_norm(x, (6, 6)), "layer_norm", "statistic of its own input"),
        (lambda x: x * x, "mul", "both change over time"),
        (lambda x: torch.matmul(x, x), "matmul", "both change over time"),
        (lambda x: 1 / x, "truediv", "first argument alone"),
        (lambda x: F.conv2d(x, x), "conv2d", "first argument alone"),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), "div", "rounds"),
        (lambda x: x.abs(), "Tensor.abs", "does not know"),
        (lambda x: x + torch.zeros(x.shape), "zeros", "does not know"),
        (lambda x: F.dropout(x, 0.5), "dropout", "training=self.training"),
        (lambda x: x.flatten(0), "Tensor.flatten", "mixes the images"),
        (lambda x: x.flatten(0, 1), "Tensor.flatten", "mixes the images"),
        (lambda x: x - x.mean(0, keepdim=True), "Tensor.mean", "mixes the images"),
        (lambda x: x.mean(-4), "Tensor.mean", "mixes the images"),
        (lambda x: x.mean(), "Tensor.mean", "mixes the images"),
        (lambda x: torch.cat([x, x]), "cat", "mixes the images"),
        (lambda x: torch.stack([x, x]), "stack", "mixes the images"),
        (lambda x: x.transpose(0, 1), "Tensor.transpose", "mixes the images"),
        (lambda x: x.permute(1, 0, 2, 3), "Tensor.permute", "mixes the images"),
        (lambda x: x.reshape(-1, 2, 6, 6), "Tensor.reshape", "mixes the images"),
        (lambda x: x.unsqueeze(0), "Tensor.unsqueeze", "mixes the images"),
        (lambda x: x[0], "getitem", "picks from the batch"),
        (lambda x: x[: x.shape[0]], "getitem", "picks from the batch"),
        (lambda x: x[[0, 1]], "getitem", "picks from the batch"),
        (lambda x: x[:, x.sum((0, 2, 3)).argsort()], "getitem", "first argument alone"),
        (lambda x: x.split(x.size(0))[0], "Tensor.split", "splits the batch"),
        (lambda x: x.view(torch.int32), "Tensor.view", "another dtype"),
        (lambda x: x.mean((1, 2, 3)).view(-1, 1) + x.mean((1, 2, 3)), "add", "mixes the images"),
        (lambda x: x[..., :100, :, :, :], "getitem", "picks from the batch"),
        (lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, -1, 1)), "pad", "depends on the others"),
        (lambda x: x.unsqueeze(1).squeeze(), "Tensor.squeeze", r"use flatten(1) or squeeze(dim)"),
        (lambda x: torch.squeeze(x), "squeeze", r"use flatten(1) or squeeze(dim)"),
        (lambda x: x.squeeze(0), "Tensor.squeeze", "mixes the images of a batch: from 1 image"),
    ],
)
def test_operation_is_refused_by_name(
    function: Callable[[Tensor], Tensor], operation: str, reason: str
) -> None:
    found = offences_of(Function(function))
    assert any(op == operation and reason in why for _, op, why in found), found


def test_offence_names_the_innermost_module() -> None:
    model = nn.Sequential(nn.Sequential(Function(torch.tanh)))
    [(path, operation, reason)] = offences_of(model)
    assert (path, operation) == ("0.0", "tanh")
    assert reason.startswith("only ReLU has a spiking neuron")


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.sum() > 0 else x


class Assigning(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.relu()
        y[:, 0] = 0
        return y


def test_untraceable_model_is_refused_with_its_path() -> None:
    [(path, operation, reason)] = offences_of(nn.Sequential(nn.Sequential(Branching())))
    assert (path, operation) == ("0.0", "forward")
    assert reason == (
        "cannot be followed: torch.fx fails (a branch or a loop depends on a tensor), torch.export "
        "fails (a branch, a loop or a size depends on the values of a tensor); forward may branch "
        "on the sizes of tensors, not on their values nor on what happened before"
    )


def test_assignment_to_a_part_is_refused_with_its_path() -> None:
    assert offences_of(nn.Sequential(nn.Sequential(Assigning()))) == [
        ("0.0", "fill", "writes in place into what is read again through a view")
    ]


def test_failing_model_is_refused_with_its_path() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(5, 5))
    [(path, operation, reason)] = offences_of(model)
    assert (path, operation) == ("2", "Linear")
    assert "fails on 2 images of" in reason


def test_batch_norm_without_running_statistics() -> None:
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), norm, nn.ReLU())
    assert offences_of(model) == [
        ("3", "BatchNorm2d", "has no running statistics (track_running_stats=False)")
    ]


def test_model_without_relu() -> None:
    [tanh, (path, operation, reason)] = offences_of(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh()))
    assert tanh[:2] == ("1", "Tanh")
    assert (path, operation) == ("", "forward")
    assert reason.startswith("no ReLU lies between the images and what forward returns")


class Returns(nn.Module):
    """Returns something else than a tensor; with a branch, torch.fx cannot follow it."""

    def __init__(self, collect: Callable[[Tensor], object], branch: bool) -> None:
        super().__init__()
        self.collect, self.branch = collect, branch

    def forward(self, x: Tensor) -> object:
        y = F.gelu(x.relu())
        return self.collect(y * 2 if self.branch and x.shape[1] > 1 else y)


@pytest.mark.parametrize("branch", [False, True], ids=["torch.fx", "torch.export"])
@pytest.mark.parametrize(
    ("collect", "kind"),
    [
        (lambda x: {"out": x}, "dict"),
        (lambda x: OrderedDict(out=x, aux=[x]), "dict"),
        (lambda x: [x], "list"),
        (lambda x: (x,), "tuple"),
        (lambda x: (x, x + 1), "tuple"),
    ],
    ids=["dict", "OrderedDict", "list", "tuple of one", "tuple"],
)
def test_other_output_than_a_tensor_is_refused_with_the_rest(
    collect: Callable[[Tensor], object], kind: str, branch: bool
) -> None:
    gelu, output = offences_of(Returns(collect, branch))
    assert gelu[1] == "gelu"
    reason = f"returns {kind}; it must return one tensor, the logits"
    assert output == ("", "output", reason)


def test_output_that_is_no_tensor() -> None:
    assert offences_of(Returns(lambda x: x.chunk(2, 1), branch=False))[1:] == [
        ("", "output", "returns several tensors; it must return one tensor, the logits")
    ]
    assert offences_of(Returns(lambda x: x.size(0), branch=False))[1:] == [
        ("", "output", "returns no tensor; it must return one tensor, the logits")
    ]


def test_hooks_are_refused() -> None:
    model = network()
    model[1].register_forward_hook(lambda *call: call[2] * 2)
    assert offences_of(model) == [("1", "ReLU", "has forward hooks; remove them before conversion")]


def test_replaced_forward_is_refused() -> None:
    model = nn.Sequential(*network(), nn.Identity()).eval()
    model[1].forward = lambda x: F.leaky_relu(x, 0.5)
    model[6].forward = lambda x: x * 2
    reason = "its forward was replaced; put it back, or write a class with that forward"
    assert offences_of(model) == [("1", "ReLU", reason), ("6", "Identity", reason)]


class WritesParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.seen.add_(1)).relu()


class WritesView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        x.flatten(1).mul_(2)
        return x.relu()


def test_writes_that_cannot_be_undone_are_refused() -> None:
    [(_, operation, reason)] = offences_of(nn.Sequential(WritesView(), nn.ReLU()))
    assert operation == "Tensor.mul"
    assert reason == "writes in place into what is read again through a view"


def test_writing_a_buffer_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"0: .*add.*: writes into a parameter or buffer"):
        snm.convert(nn.Sequential(WritesParameter()).eval(), IMAGES)


class Before(nn.Module):
    """``function`` before the neurons, and the images beside them."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        return F.relu(self.function(y)) + x


def then(write: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    """Writes into a tensor, and hands it on."""

    def function(x: Tensor) -> Tensor:
        write(x)
        return x

    return function


@pytest.mark.parametrize("build", [Before, Function])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.ravel(),
        lambda x: x.data,
        lambda x: x.float(),
        lambda x: x.to(torch.float32),
        lambda x: x.swapaxes(1, 2),
        lambda x: x.unfold(1, 2, 2),
        lambda x: x.view(x.shape),
    ],
    ids=["ravel", "data", "float", "to", "swapaxes", "unfold", "view"],
)
def test_write_through_a_view_is_refused(
    build: Callable[..., nn.Module], view: Callable[[Tensor], Tensor]
) -> None:
    found = offences_of(build(then(lambda x: view(x).mul_(3.0))))
    assert any(why.startswith("writes in place into what is read again") for _, _, why in found)


def writes_out(x: Tensor) -> Tensor:
    result = x + 0
    torch.mul(x, 3.0, out=result)
    return result


@pytest.mark.parametrize(
    ("function", "operation", "reason"),
    [
        (writes_out, "mul", "writes into out=; use its result"),
        (
            then(lambda x: torch._foreach_mul_([x], 3.0)),
            "_foreach_mul",
            "writes in place; use a form that does not",
        ),
    ],
    ids=["out", "foreach"],
)
def test_write_into_an_argument_is_refused(
    function: Callable[[Tensor], Tensor], operation: str, reason: str
) -> None:
    assert ("", operation, reason) in offences_of(Before(function))


@pytest.mark.parametrize("build", [Before, Function])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_tracing_does_not_see_is_refused(
    build: Callable[..., nn.Module], dtype: torch.dtype
) -> None:
    calls = itertools.count(1)
    model = build(lambda x: x * next(calls)).to(dtype)
    [(path, operation, reason)] = offences_of(model, IMAGES.to(dtype))
    assert (path, operation) == ("", "forward")
    assert "torch.fx fails (its graph computes something else than the model: largest" in reason
    assert "torch.export fails (its graph computes something else than the model" in reason


@pytest.mark.parametrize(
    ("function", "operation", "reason"),
    [
        (lambda x: x - x.mean(0), "sub", "depends on the others"),
        (lambda x: x.flip(0), "Tensor.flip", "on their order"),
        (lambda x: x + torch.rand_like(x), "rand_like", "or on chance"),
        (lambda x: x[:100], "getitem", "picks from the batch"),
        (lambda x: x.squeeze(), "Tensor.squeeze", "use flatten(1) or squeeze(dim)"),
    ],
)
def test_mixing_the_images_before_the_neurons_is_refused(
    function: Callable[[Tensor], Tensor], operation: str, reason: str
) -> None:
    found = offences_of(Before(function))
    assert any(op == operation and reason in why for _, op, why in found), found


class Gram(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x @ x.transpose(0, 1)) @ torch.relu(x)


def test_images_in_another_dimension_are_refused() -> None:
    [(_, operation, reason)] = offences_of(Gram(), torch.rand(4, 8))
    assert operation == "matmul"
    assert reason == "reads a value that holds the images in another dimension than the first"


def test_model_in_training_mode() -> None:
    with pytest.raises(ValueError, match=r"is in training mode; call model.eval\(\) first"):
        snm.convert(network().train(), IMAGES)


def test_module_in_training_mode() -> None:
    model = network()
    model[3].train()
    with pytest.raises(ValueError, match="3 is in training mode"):
        snm.convert(model, IMAGES)


def test_model_on_two_devices() -> None:
    model = network()
    model[3].to("meta")
    message = r"must be on one device, but 0.weight is on cpu and 3.weight on meta; move it with"
    with pytest.raises(ValueError, match=message):
        snm.convert(model, IMAGES)


def test_model_without_values() -> None:
    with pytest.raises(ValueError, match=r"0.weight is on device meta and holds no values"):
        snm.convert(network().to("meta"), IMAGES)


def test_model_of_another_dtype() -> None:
    message = "0.weight is float64; convert the model to one of float32, float16, bfloat16"
    with pytest.raises(ValueError, match=message):
        snm.convert(network().double(), IMAGES.double())


def test_model_that_is_no_module() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got function"):
        snm.convert(torch.nn.functional.relu, IMAGES)


@pytest.mark.parametrize("calibration", [[], iter([]), IMAGES[:0], [IMAGES[:0]]])
def test_calibration_without_images(calibration: object) -> None:
    with pytest.raises(ValueError, match="calibration must hold at least one image, got none"):
        snm.convert(network(), calibration)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_calibration_that_is_not_finite(value: float) -> None:
    bad = IMAGES.clone()
    bad[2, 1, 3, 3] = value
    with pytest.raises(ValueError, match="calibration images must be finite, got NaN or infinity"):
        snm.convert(network(), [IMAGES, (bad, torch.zeros(4))])


def test_weights_that_are_not_finite() -> None:
    model = network()
    with torch.no_grad():
        model[3].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="activations of 4 must be finite") as caught:
        snm.convert(model, IMAGES)

    for text in (str(caught.value), *map(str, caught.value.args)):
        assert "While executing" not in text
        assert "tlparse" not in text


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (3, "calibration must be a tensor of images or an iterable of batches, got int"),
        ([{"images": IMAGES}], "must be a tensor or a tuple that starts with one"),
        (IMAGES.double(), "calibration images must be float32 like the model, got float64"),
    ],
)
def test_calibration_of_another_type(calibration: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        snm.convert(network(), calibration)


def test_calibration_without_batch_dimension() -> None:
    with pytest.raises(ValueError, match=r"calibration images must be \[N, ...\], got \[\]"):
        snm.convert(network(), [torch.tensor(1.0)])


def test_calibration_images_of_two_sizes() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).eval()
    message = r"norm='neuron' all calibration images must be of one size, got .* in 1"
    with pytest.raises(ValueError, match=message):
        snm.convert(model, [IMAGES, torch.rand(4, 2, 9, 9)])
    snm.convert(model, [IMAGES, torch.rand(4, 2, 9, 9)], norm="channel")


def test_calibration_images_that_the_model_fails_on() -> None:
    message = (
        r"^convert: the model fails on calibration images of \[2, 9, 9\], after those of "
        r"\[2, 8, 8\]: mat1 and mat2 shapes cannot be multiplied \(4x196 and 144x8\)$"
    )
    with pytest.raises(ValueError, match=message):
        snm.convert(network(), [IMAGES, torch.rand(4, 2, 9, 9)], norm="channel")


class ForSmallImages(nn.Module):
    """Another model for large images, so that its graph is right for one size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] > 8:
            x = x * 0
        return self.conv(x).relu().mean((2, 3))


def test_images_of_another_size_than_exported() -> None:
    model, large = ForSmallImages().eval(), torch.rand(2, 2, 10, 10)
    message = (
        r"images must be \[2, 8, 8\] each, for which torch.export traced the model, got \[2, 10"
    )
    with pytest.raises(ValueError, match=f"^convert: calibration {message}"):
        snm.convert(model, [IMAGES, large], norm="channel")
    net = snm.convert(model, IMAGES, norm="channel")
    for run in (net, net.anytime):
        with pytest.raises(ValueError, match=f"^SpikingNetwork: {message}"):
            run(large, timesteps=2)


class Keeps(nn.Module):
    """Keeps its last result, with the history of its gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.conv(x).relu()
        return self.last


def test_model_that_cannot_be_copied() -> None:
    locked, keeps = network(), Keeps()
    locked[1].lock = threading.Lock()
    keeps(IMAGES)
    for model, path, kind, name, why in (
        (locked, "1", "ReLU", "lock", "cannot pickle '_thread.lock' object"),
        (nn.Sequential(keeps), "0", "Keeps", "last", "Only Tensors created explicitly by the user"),
    ):
        [offence] = offences_of(model)
        assert offence[:2] == (path, kind)
        assert offence[2].startswith(f"its attribute {name} cannot be copied: {why}")
        assert offence[2].endswith("; delete what cannot be copied, or make it in forward")
        for report in (snm.convertible(model), snm.convertible(model, IMAGES)):
            assert [tuple(found[:3]) for found in report.offences] == [offence]


class Uncopyable(nn.ReLU):
    def __deepcopy__(self, _memo: object) -> nn.Module:
        raise RuntimeError("never. So there")


def test_model_that_refuses_to_be_copied() -> None:
    [(path, kind, reason)] = offences_of(Uncopyable())
    assert (path, kind) == ("", "Uncopyable")
    assert reason.startswith("cannot be copied: never; conversion works on a copy")


@pytest.mark.parametrize(
    ("argument", "known"),
    [
        ("preset", "snm, snm-half, snm-zero, if, if-half, st-bif, burst"),
        ("norm", "neuron, channel, layer"),
        ("statistic", "max, percentile, mse"),
        ("dead", "silent, channel, layer"),
    ],
)
def test_unknown_choice(argument: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be one of {known}, got 'best'"):
        snm.convert(network(), IMAGES, **{argument: "best"})


def test_preset_of_another_type() -> None:
    with pytest.raises(TypeError, match="preset must be a name or an SNMRule, got 3"):
        snm.convert(network(), IMAGES, preset=3)


@pytest.mark.parametrize("count", [0, -1])
def test_too_few_steps(count: int) -> None:
    with pytest.raises(ValueError, match=f"^convert: chunk_steps must be at least 1, got {count}"):
        snm.convert(network(), iter(()), chunk_steps=count)
    net = snm.convert(network(), IMAGES)
    for run in (net, net.anytime):
        with pytest.raises(ValueError, match=f"timesteps must be at least 1, got {count}"):
            run(IMAGES, timesteps=count)


@pytest.mark.parametrize("count", [2.0, True, "4"])
def test_steps_of_another_type(count: object) -> None:
    with pytest.raises(TypeError, match=f"timesteps must be an integer, got {count!r}"):
        snm.convert(network(), IMAGES)(IMAGES, timesteps=count)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (IMAGES[0], ValueError, r"must have 4 dimensions, the batch first.*got \[2, 8, 8\]"),
        (IMAGES.to("meta"), ValueError, "images are on meta, but the network is on cpu"),
        (IMAGES.double(), TypeError, "images must be float32 like the network, got float64"),
        (IMAGES * float("nan"), ValueError, "images must be finite, got NaN or infinity"),
        (IMAGES / 0, ValueError, "images must be finite, got NaN or infinity"),
        (None, TypeError, "images must be a tensor, got NoneType"),
    ],
    ids=["no batch", "device", "dtype", "NaN", "infinity", "no tensor"],
)
def test_bad_images(images: object, error: type[Exception], message: str) -> None:
    net = snm.convert(network(), IMAGES)
    for run in (net, net.anytime):
        with pytest.raises(error, match=message):
            run(images, timesteps=4)


def test_images_of_another_size_than_calibrated() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    small, large = torch.rand(4, 2, 3, 3), torch.rand(4, 2, 9, 9)
    for images, other in ((small, large), (large, small)):
        net = snm.convert(model, images)
        for run in (net, net.anytime):
            with pytest.raises(ValueError, match="neurons of 1 were calibrated for") as caught:
                run(other, timesteps=2)
            sizes = [[4, *(side - 2 for side in i.shape[2:])] for i in (images, other)]
            assert f"{sizes[0]} per image, got {sizes[1]}; use images of" in str(caught.value)
    for norm in ("channel", "layer"):
        assert snm.convert(model, small, norm=norm)(large, timesteps=2).shape == (4, 3)


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan")])
def test_threshold_that_is_not_positive(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"SNMNeuron: threshold must be > 0 everywhere, got"):
        snm.nn.SNMNeuron(torch.tensor([1.0, threshold]))


def test_training_mode_is_refused() -> None:
    net = snm.convert(network(), IMAGES)
    with pytest.raises(RuntimeError, match="has no training mode"):
        net.train()
    assert not net.eval().training

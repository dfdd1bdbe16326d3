"""Models as they are published are converted without a change to them, and spike."""

import copy

import pytest
import torch
from torch import Tensor, nn

import snm
from snm.conversion.analysis.analyse import analyse
from snm.conversion.lowering.fold import fold_batch_norms
from snm.conversion.tracing.compare import agree
from snm.conversion.tracing.trace import trace
from support.naive import ReplaceReLUs
from support.zoo import MODELS, published

EXPORTED = {"timm vgg16_bn", "control flow"}
# Batch norms that no convolution or linear layer comes before.
UNFOLDED = {"densenet121": 62, "ReLU before norm": 2}

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


def relu_calls(model: nn.Module, images: Tensor) -> list[float]:
    """The cap of each ReLU that a forward calls, +inf for none."""
    caps: list[float] = []

    def relu(_k: int, drive: Tensor, cap: float) -> Tensor:
        caps.append(cap)
        return torch.where(drive > 0, drive, 0.0).clamp_max(cap)

    with torch.no_grad(), ReplaceReLUs(relu):
        model(images)
    return caps


@pytest.mark.parametrize("name", MODELS)
def test_published_model_is_converted_and_spikes(name: str) -> None:
    model, images = published(name)
    with torch.no_grad():
        expected = model(images)
    caps = relu_calls(copy.deepcopy(model), images.clone())
    report = snm.convertible(model, images)
    assert report.ok, str(report)
    assert report.tracer == ("torch.export" if name in EXPORTED else "torch.fx")
    net = snm.convert(model, images, preset="snm-zero", norm="channel")
    assert len(net.layers) == len(caps)
    for layer, cap in zip(net.layers.values(), caps, strict=True):
        largest = layer.threshold[layer.threshold.isfinite()]
        assert bool((largest <= cap).all())
    logits = net(images, timesteps=2)
    assert logits.shape == expected.shape
    assert bool(torch.isfinite(logits).all())
    norms = sum("BatchNorm" in type(module).__name__ for module in net.modules())
    assert norms == UNFOLDED.get(name, 0)
    with torch.no_grad():
        assert torch.equal(model(images), expected)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v2"])
def test_capped_models_have_capped_neurons(name: str) -> None:
    model, images = published(name)
    assert set(relu_calls(model, images)) == {6.0}


@pytest.mark.parametrize(
    ("name", "largest"),
    [
        ("padded shortcut", 0.02),
        ("one dimension", 0.02),
        ("three dimensions", 0.02),
        ("control flow", 0.02),
        ("shufflenet_v2_x1_0", 0.02),
    ],
)
def test_published_model_approaches_its_own_logits(name: str, largest: float) -> None:
    model, images = published(name)
    net = snm.convert(model, images, preset="snm-zero")
    with torch.no_grad():
        expected = model(images)
    error = (net(images, timesteps=128) - expected).abs().max() / expected.abs().max()
    assert error < largest


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["padded shortcut", "control flow", "shufflenet_v2_x1_0"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    model, images = published(name)
    model, images = model.to(dtype), images.to(dtype)
    with torch.no_grad():
        traced = trace(model, images)
        offences = analyse(traced, images, images_change=False)
    assert offences == []
    assert traced.fixed_size == (tuple(images.shape[1:]) if name in EXPORTED else None)
    assert snm.convert(model, images)(images, timesteps=2).dtype == dtype


@pytest.mark.parametrize("name", ["control flow", "timm resnet18", "efficientnet_lite0"])
def test_folding_changes_no_result(name: str) -> None:
    model, images = published(name)
    with torch.no_grad():
        traced = trace(model, images)
        analyse(traced, images, images_change=False)
        before = torch.fx.Interpreter(traced.root, graph=traced.graph).run(images)
        fold_batch_norms(traced)
        after = torch.fx.Interpreter(traced.root, graph=traced.graph).run(images)
    assert agree(after, before)
    assert before.count_nonzero() > 0

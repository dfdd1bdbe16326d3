"""Models by name, their weights, and how their images are made."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import snm
from snm.bench.vision import torchvision_model, torchvision_models
from snm.data.preprocess import Preprocessing
from snm.models import Request, load_model
from snm.optional import PackageError
from support.evaluation import GREY, SOURCE, small_network

IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256, 224)
IMAGES = torch.rand(2, 1, 28, 28)


def shifted() -> nn.Module:
    """The small network with other weights."""
    model = small_network()
    for parameter in model.parameters():
        nn.init.uniform_(parameter)
    return model


def with_transform() -> tuple[nn.Module, object]:
    """A model and what makes its images."""
    return small_network(), GREY


def only_a_number() -> int:
    return 3


def test_function_of_a_module() -> None:
    loaded = load_model(Request(SOURCE, preprocessing=GREY))
    assert torch.equal(loaded.model(IMAGES), small_network()(IMAGES))
    assert loaded.preprocess is GREY
    assert load_model(Request(f"{__name__}:with_transform")).preprocess is GREY
    other = dataclasses.replace(GREY, crop=28)
    asked = Request(f"{__name__}:with_transform", preprocessing=other)
    assert load_model(asked).preprocess is other


def test_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_model.py").write_text(
        "from support.evaluation import small_network as build\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert isinstance(
        load_model(Request("their_model:build", preprocessing=GREY)).model, nn.Sequential
    )


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints(tmp_path: Path, ending: str, wrapper: str | None, prefix: str) -> None:
    path = tmp_path / f"weights{ending}"
    other = shifted()
    weights = {f"{prefix}{name}": value for name, value in other.state_dict().items()}
    if ending == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights if wrapper is None else {wrapper: weights, "epoch": 3}, path)
    loaded = load_model(Request(SOURCE, checkpoint=path, preprocessing=GREY))
    assert torch.equal(loaded.model(IMAGES), other(IMAGES))
    assert loaded.digest != load_model(Request(SOURCE, preprocessing=GREY)).digest


def test_weights_of_another_model_are_listed(tmp_path: Path) -> None:
    weights = small_network().state_dict()
    del weights["0.bias"]
    weights["6.weight"] = torch.zeros(11, 16)
    weights["7.weight"] = torch.zeros(1)
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="checkpoint must hold the model's weights") as caught:
        load_model(Request(SOURCE, checkpoint=tmp_path / "weights.pt", preprocessing=GREY))
    assert str(caught.value).splitlines()[1:] == [
        *("  missing 0.bias", "  unexpected 7.weight"),
        "  6.weight is [11, 16], expected [10, 16]",
    ]
    torch.save({f"{n}": torch.zeros(1) for n in range(20)}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="and 16 more"):
        load_model(Request(SOURCE, checkpoint=tmp_path / "weights.pt", preprocessing=GREY))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weights.safetensors", b"no tensors"),
        ("weights.pt", b"no tensors"),
        ("weights.pt", b""),
        ("weights.pth", [1, 2]),
        ("weights.pth", {"state_dict": {"a": 1}}),
        ("weights.pth", {"state_dict": SimpleNamespace()}),
    ],
)
def test_damaged_checkpoints_are_named(tmp_path: Path, name: str, content: object) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=f"^{path} must"):
        load_model(Request(SOURCE, checkpoint=path, preprocessing=GREY))


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint must be a file, got .*/none\.pt"):
        load_model(Request(SOURCE, checkpoint=tmp_path / "none.pt", preprocessing=GREY))


def test_torchvision_with_the_preprocessing_of_its_weights(tmp_path: Path) -> None:
    model = torchvision_model("resnet18")
    path = tmp_path / "mine.pth"
    torch.save(model.state_dict(), path)
    loaded = load_model(Request("torchvision:resnet18", checkpoint=path))
    # It has weights of one kind only.
    assert loaded.preprocess == IMAGENET
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded.model(images), model.eval()(images))
    few = Request("torchvision:resnet18", classes=10, random_weights=True, preprocessing=GREY)
    assert load_model(few).model(images).shape == (1, 10)
    assert load_model(few).digest == load_model(few).digest


def test_torchvision_has_to_know_which_weights(tmp_path: Path) -> None:
    torchvision_models()
    request = Request("torchvision:mobilenet_v2", random_weights=True)
    with pytest.raises(ValueError, match=r"several ways; say which .*IMAGENET1K_V1, IMAGENET1K_V2"):
        load_model(request)
    assert load_model(request._replace(weights="IMAGENET1K_V1")).preprocess == IMAGENET
    second = dataclasses.replace(IMAGENET, resize=232)
    assert load_model(request._replace(weights="IMAGENET1K_V2")).preprocess == second
    with pytest.raises(ValueError, match=r"weights must be one of IMAGENET1K_V1, .*, got 'V3'"):
        load_model(request._replace(weights="V3"))
    # The name under which the weights are published says it too.
    path = tmp_path / "mobilenet_v2-7ebf99e0.pth"
    torch.save(torchvision_model("mobilenet_v2").state_dict(), path)
    published = Request("torchvision:mobilenet_v2", checkpoint=path)
    assert load_model(published).preprocess == second


def test_timm_with_the_preprocessing_of_its_weights() -> None:
    torchvision_models()
    loaded = load_model(Request("timm:resnet18", random_weights=True, classes=7))
    assert isinstance(loaded.preprocess, Preprocessing)
    assert loaded.preprocess.crop == 224
    assert loaded.preprocess.mean == IMAGENET.mean
    assert loaded.model(torch.rand(1, 3, 64, 64)).shape == (1, 7)


@pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")
def test_saved_network(tmp_path: Path) -> None:
    net = snm.convert(small_network(), IMAGES)
    snm.save(net, tmp_path / "net.safetensors")
    request = Request(str(tmp_path / "net.safetensors"))
    with pytest.raises(
        ValueError, match=r"nothing says how .* takes its images; give mean and std"
    ):
        load_model(request)
    net.preprocessing = GREY.to_json()
    snm.save(net, tmp_path / "net.safetensors")
    loaded = load_model(request)
    assert loaded.preprocess == GREY
    assert torch.equal(loaded.model(IMAGES, timesteps=4), net(IMAGES, timesteps=4))
    with pytest.raises(ValueError, match="leave checkpoint out"):
        load_model(request._replace(checkpoint=tmp_path / "net.safetensors"))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("resnet18", ValueError, "model must be torchvision:NAME, .*, got 'resnet18'"),
        ("torchvision:", ValueError, "model must be torchvision:NAME"),
        ("torchvision:resnet18", ValueError, "has random weights, and nothing is downloaded"),
        ("timm:resnet18", ValueError, "has random weights, and nothing is downloaded"),
        ("no_such_module:build", ValueError, "can be imported, got no_such_module:build"),
        (f"{__name__}:no_such_function", ValueError, "has no no_such_function"),
        (f"{__name__}:only_a_number", TypeError, "must return a torch.nn.Module, .*, got 3"),
        (SOURCE, ValueError, "nothing says how support.evaluation:small_network takes its images"),
        ("no.safetensors", FileNotFoundError, "no.safetensors"),
    ],
)
def test_bad_sources_are_refused(source: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_model(Request(source))


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_unknown_models_of_libraries(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision_models()
    request = Request(f"{library}:no_such_net", random_weights=True)
    with pytest.raises(ValueError, match=f"model must be one of {library}'s, got 'no_such_net'"):
        load_model(request)
    module = "timm" if library == "timm" else "torchvision.models"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PackageError, match=f"{library}:no_such_net needs {library}, which does"):
        load_model(request)

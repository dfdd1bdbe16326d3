"""A saved network comes back as it was; a file that is not one is refused and runs nothing."""

import hashlib
import inspect
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import snm
from snm import SNMRule, SpikingNetwork, files
from snm.conversion.analysis import operations, pooling
from snm.files import as_json, blueprint
from snm.files.as_json import from_json, to_json
from snm.network.program import Value
from support import zoo
from support.networks import IMAGE_2D, NETWORKS, exact, exact_images, exact_network

T = 5
MIXED = SNMRule(
    v_init=0.25, negative_threshold=None, strict=True, max_spikes=3, count_min=None, count_max=4
)

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


def converted(name: str, **options: Any) -> SpikingNetwork:
    model, calibration, _ = exact_network(name)
    return snm.convert(model, calibration, **options)


def saved_and_loaded(net: SpikingNetwork, folder: Path) -> SpikingNetwork:
    snm.save(net, folder / "net.safetensors")
    return snm.load(str(folder / "net.safetensors"))


def assert_same(a: SpikingNetwork, b: SpikingNetwork) -> None:
    """Everything that makes a network what it is."""
    assert a.program == b.program
    assert repr(a) == repr(b)
    for name in blueprint.SETTINGS:
        assert getattr(a, name) == getattr(b, name), name
    before, after = a.state_dict(), b.state_dict()
    assert list(before) == list(after)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
        assert tensor.stride() == after[name].stride(), name
        assert tensor.dtype == after[name].dtype, name
    assert [name for name, _ in a.named_parameters()] == [name for name, _ in b.named_parameters()]
    assert not any(parameter.requires_grad for parameter in b.parameters())
    assert not any(module.training for module in b.modules())
    for path, neuron in b.layers.items():
        assert neuron.threshold.dtype == torch.float32
        assert neuron.rule == a.layers[path].rule
        assert neuron.backend == a.layers[path].backend


def assert_same_answers(a: SpikingNetwork, b: SpikingNetwork, images: Tensor) -> None:
    assert torch.equal(a(images, timesteps=T), b(images, timesteps=T))
    assert torch.equal(a.anytime(images, timesteps=T), b.anytime(images, timesteps=T))
    for _ in range(2):
        assert torch.equal(a.step(images), b.step(images))


SAVED = {
    "pre-activation": "77409391ccfcc61b30f7f965854480bf0b00d94043afe3e8cda149abe5d0aec0",
    "pooled": "c0d8066db7ae806c5c0a34e2377fa49cc93b65b1b429e36d99a99334ae747d29",
}
"""Files of format 1 in tests/network/saved/, written by 0.1.0, and a hash of what they answer."""


@pytest.mark.parametrize("name", SAVED)
def test_file_of_an_earlier_version_loads(name: str) -> None:
    net = snm.load(Path(__file__).with_name("saved") / f"{name}.safetensors")
    answers = net.anytime(exact_network(name)[2], timesteps=T)
    # All sums are exact; there is one zero.
    assert hashlib.sha256((answers + 0.0).contiguous().numpy().tobytes()).hexdigest() == SAVED[name]


def test_settings_are_those_of_the_constructor() -> None:
    names = inspect.signature(SpikingNetwork).parameters
    assert {*blueprint.SETTINGS} == {*names} - {"model", "program"}


@pytest.mark.parametrize("norm", ["neuron", "channel", "layer"])
@pytest.mark.parametrize("name", NETWORKS)
def test_network_comes_back(name: str, norm: str, tmp_path: Path) -> None:
    net = converted(name, norm=norm)
    loaded = saved_and_loaded(net, tmp_path)
    assert_same(net, loaded)
    assert_same_answers(net, loaded, exact_network(name)[2])


@pytest.mark.parametrize("name", ["plain", "residual", "pre-activation"])
def test_memory_format_comes_back(name: str, tmp_path: Path) -> None:
    model, calibration, images = (
        value.to(memory_format=torch.channels_last) for value in exact_network(name)
    )
    net = snm.convert(model, calibration)
    loaded = saved_and_loaded(net, tmp_path)
    assert_same(net, loaded)
    assert_same_answers(net, loaded, images)
    assert any(not tensor.is_contiguous() for tensor in loaded.state_dict().values())


def test_strides_of_sizes_of_one_come_back(tmp_path: Path) -> None:
    net = snm.convert(nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU()).eval(), torch.rand(4, 2, 5, 5))
    conv = net.model.get_submodule("0")
    for stride in [(2, 1, 1, 1), (2, 1, 2, 2), (2, 1, 7, 9)]:
        conv.weight = nn.Parameter(torch.rand(6).as_strided((3, 2, 1, 1), stride), False)
        assert_same(net, saved_and_loaded(net, tmp_path))


def test_gaps_in_memory_are_left_out(tmp_path: Path) -> None:
    net = converted("read twice")
    layer = net.model.get_submodule("first")
    layer.weight = nn.Parameter(torch.rand(6, 24)[:, ::2], requires_grad=False)
    weight = saved_and_loaded(net, tmp_path).model.get_submodule("first").weight
    assert torch.equal(weight, layer.weight)
    assert weight.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    model, calibration, images = (value.to(dtype) for value in exact_network("residual"))
    net = snm.convert(model, calibration)
    loaded = saved_and_loaded(net, tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert_same(net, loaded)
    assert_same_answers(net, loaded, images)


@pytest.mark.parametrize("rule", [*snm.PRESETS, MIXED], ids=[*snm.PRESETS, "mixed"])
def test_rule_comes_back(rule: str | SNMRule, tmp_path: Path) -> None:
    net = converted("branches", preset=rule, chunk_steps=3)
    for neuron in net.layers.values():
        neuron.backend = "reference"
    loaded = saved_and_loaded(net, tmp_path)
    assert_same(net, loaded)
    assert_same_answers(net, loaded, exact_network("branches")[2])


@pytest.mark.parametrize("readout", ["mean", "count"])
@pytest.mark.parametrize("encoder", ["direct", "poisson", "frames"])
@pytest.mark.parametrize("name", ["plain", "branches", "ends in ReLU"])
def test_encoder_and_readout_come_back(
    name: str, encoder: str, readout: str, tmp_path: Path
) -> None:
    net = converted(name, encoder=encoder, readout=readout)
    loaded = saved_and_loaded(net, tmp_path)
    assert_same(net, loaded)
    images = exact_network(name)[2]
    given = torch.stack([images, images / 2, -images]) if encoder == "frames" else images
    answers = []
    for one in (net, loaded):
        torch.manual_seed(0)
        answers.append((one(given, timesteps=3), one.anytime(given, timesteps=3)))
    assert all(map(torch.equal, *answers))


class Pools(nn.Sequential):
    """Max pooling of spikes."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
            *(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d((2, None))),
            *(nn.Flatten(), nn.Linear(40, 3)),
        )


def test_running_maxima_come_back(tmp_path: Path) -> None:
    net = snm.convert(exact(Pools()), exact_images(6, IMAGE_2D))
    loaded = saved_and_loaded(net, tmp_path)
    assert_same(net, loaded)
    assert_same_answers(net, loaded, exact_images(3, IMAGE_2D, seed=2))


@pytest.mark.parametrize("name", ["control flow", "padded shortcut", "one dimension"])
def test_published_network_comes_back(name: str, tmp_path: Path) -> None:
    model, images = zoo.published(name)
    net = snm.convert(model, images)
    loaded = saved_and_loaded(net, tmp_path)
    assert_same(net, loaded)
    assert_same_answers(net, loaded, images)


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)))


def test_shared_weights_stay_shared(tmp_path: Path) -> None:
    net = snm.convert(Tied().eval(), torch.rand(8, 4))
    loaded = saved_and_loaded(net, tmp_path)
    assert_same(net, loaded)
    first, second = (loaded.model.get_submodule(name).weight for name in ("first", "second"))
    assert first is second


def test_loading_draws_no_random_numbers_and_keeps_no_hold_of_the_file(tmp_path: Path) -> None:
    net, images = converted("plain"), exact_network("plain")[2]
    path = tmp_path / "net.safetensors"
    snm.save(net, path)
    before = torch.get_rng_state()
    loaded = snm.load(path)
    assert torch.equal(torch.get_rng_state(), before)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_same_answers(net, loaded, images)


def test_loaded_network_is_on_the_device(tmp_path: Path) -> None:
    snm.save(converted("plain"), tmp_path / "net")
    loaded = snm.load(tmp_path / "net", device=torch.device("cpu", 0))
    assert {tensor.device.type for tensor in loaded.state_dict().values()} == {"cpu"}


def test_saving_replaces_a_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    snm.save(converted("plain"), path)
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    before = path.read_bytes()

    def fail(*_arguments: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            snm.save(converted("residual"), path)
    assert path.read_bytes() == before
    snm.save(converted("residual"), path)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


LAYERS: dict[type[nn.Module], nn.Module] = {
    type(layer): layer
    for layer in (
        nn.Conv1d(4, 6, 3, 2, 1, 2, 2, bias=False, padding_mode="reflect"),
        nn.Conv2d(4, 6, (3, 1), padding="same", bias=True),
        nn.Conv3d(2, 2, 3, padding="valid"),
        nn.ConvTranspose1d(4, 6, 3, 2, 1, 1, 2, False, 2),
        nn.ConvTranspose2d(4, 6, 3, stride=(2, 1), output_padding=(1, 0)),
        nn.ConvTranspose3d(2, 2, 3),
        nn.Linear(3, 2, bias=False),
        nn.BatchNorm1d(3, eps=1e-3, momentum=None),
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm3d(3, track_running_stats=False),
        nn.SyncBatchNorm(3),
        nn.AvgPool1d(3, 2, 1, True, False),
        nn.AvgPool2d((3, 2), count_include_pad=False, divisor_override=5),
        nn.AvgPool3d(2),
        nn.AdaptiveAvgPool1d(3),
        nn.AdaptiveAvgPool2d((3, None)),
        nn.AdaptiveAvgPool3d((1, 2, 3)),
        nn.MaxPool1d(3, 2, 1, 2, ceil_mode=True),
        nn.MaxPool2d((3, 2), return_indices=True),
        nn.MaxPool3d(2),
        nn.AdaptiveMaxPool1d(3),
        nn.AdaptiveMaxPool2d((3, None), return_indices=True),
        nn.AdaptiveMaxPool3d(2),
        *(nn.ZeroPad1d(1), nn.ZeroPad2d((1, 0, 2, 3)), nn.ZeroPad3d(1)),
        *(nn.ConstantPad1d(1, 0.5), nn.ConstantPad2d(1, float("-inf")), nn.ConstantPad3d(1, 2)),
        *(nn.ReflectionPad1d(1), nn.ReflectionPad2d((1, 0, 2, 3)), nn.ReflectionPad3d(1)),
        *(nn.ReplicationPad1d(1), nn.ReplicationPad2d(2), nn.ReplicationPad3d(1)),
        *(nn.CircularPad1d(1), nn.CircularPad2d(2), nn.CircularPad3d(1)),
        nn.Upsample(scale_factor=(2.0, 1.5), mode="bilinear", align_corners=True),
        nn.UpsamplingNearest2d(size=(3, 4)),
        nn.UpsamplingBilinear2d(scale_factor=2),
        *(nn.Flatten(1, -2), nn.Unflatten(1, (2, 3))),
        *(nn.Fold((4, 5), (2, 2)), nn.Unfold(3, padding=1)),
        *(nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.ChannelShuffle(2)),
    )
}


def test_every_layer_is_tried() -> None:
    assert set(LAYERS) == set(as_json.MODULES.values())


@pytest.mark.parametrize("layer", LAYERS.values(), ids=[cls.__name__ for cls in LAYERS])
def test_layer_comes_back(layer: nn.Module) -> None:
    slots = {**layer._parameters, **layer._buffers}
    own = {name: tensor for name, tensor in slots.items() if tensor is not None}
    raw = json.loads(
        json.dumps({"class": type(layer).__name__, "arguments": blueprint._arguments(layer)})
    )
    same = blueprint._module("layer", raw, own)

    def settings(module: nn.Module) -> dict[str, Any]:
        return {name: value for name, value in vars(module).items() if name[0] != "_"}

    assert type(same) is type(layer)
    assert settings(same) == settings(layer)
    assert repr(same) == repr(layer)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -1, 0.1, -0.0, float("inf"), float("-inf"), "", "tensor ü"),
        *(..., slice(None), slice(Value("a"), None, 2), torch.float32, torch.bool),
        *(torch.channels_last, torch.preserve_format, torch.device("cuda:1"), torch.device("cpu")),
        *(torch.Size((1, 2)), [1, [2, (3.0, ())]], {"a": [1], "b": (None,)}, Value("x")),
    ],
    ids=repr,
)
def test_value_comes_back(value: object) -> None:
    same = from_json(json.loads(json.dumps(to_json(value), allow_nan=False)))
    assert type(same) is type(value)
    assert repr(same) == repr(value)


def test_every_known_function_has_a_name() -> None:
    known = {*operations.FUNCTIONS, *pooling.FUNCTIONS, *pooling.ADAPTIVE_FUNCTIONS}
    assert known <= set(as_json.FUNCTIONS.values())
    for name, function in as_json.FUNCTIONS.items():
        assert name.rpartition(".")[0] in ("torch", "torch.nn.functional") or function in {
            *operations.FUNCTIONS,
            *as_json._FUNCTIONS,
        }


class Before(nn.Module):
    """Something before the first neuron, which is computed once."""

    def __init__(self, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.head = before, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.head(self.before(x)))


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (nn.SiLU(), "before: SiLU: is none of the layers that a file may hold; apply it to the"),
        (F.gelu, "gelu: gelu: is none of the operations that a file may hold; apply it to the"),
        (lambda x: x.exp(), "exp: exp: is none of the operations that a file may hold"),
        (lambda x: x.mT.mT, "getattr_1: getattr: is none of the operations that a file may hold"),
        (lambda x: torch.add(x, 1j).real, "add: add: complex 1j has no form in a file"),
    ],
    ids=["module", "function", "method", "attribute", "argument"],
)
def test_network_that_no_file_can_hold_is_refused(
    before: Callable[[Tensor], Tensor], message: str, tmp_path: Path
) -> None:
    net = snm.convert(Before(before).eval(), torch.rand(8, 4, 4)[:, 0])
    with pytest.raises(ValueError, match=f"^snm.save: {message}"):
        snm.save(net, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_what_a_network_does_beside_its_modules_is_refused(tmp_path: Path) -> None:
    net = converted("plain")
    hook = net.layers["2"].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=r"^snm.save: 2: SNMNeuron: has forward hooks; remove"):
        snm.save(net, tmp_path / "net")
    hook.remove()
    net.model.get_submodule("0").forward = lambda x: x
    with pytest.raises(ValueError, match=r"^snm.save: 0: Conv2d: has forward hooks; remove"):
        snm.save(net, tmp_path / "net")
    with pytest.raises(TypeError, match=r"^snm.save: net must be a SpikingNetwork, got Linear$"):
        snm.save(nn.Linear(1, 1), tmp_path / "net")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a network with an attribute, a shape query and methods."""
    path = tmp_path_factory.mktemp("files") / "arithmetic.safetensors"
    snm.save(converted("arithmetic"), path)
    return path


def refused(content: bytes, folder: Path, match: str) -> None:
    path = folder / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match) as error:
        snm.load(path)
    assert str(error.value).startswith(f"snm.load: {path}: ")


def test_truncated_file_is_refused(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for length in [0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(content) - 1]:
        refused(content[:length], tmp_path, "is no complete safetensors file")
    refused(content + b"\0", tmp_path, "is no complete safetensors file")


def test_flipped_bit_is_refused(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    in_text = content.index(b"static")
    in_digest = content.index(b'"sha256":"') + 12
    for place in [in_text, in_digest, header, (header + len(content)) // 2, len(content) - 1]:
        changed = bytearray(content)
        changed[place] ^= 1
        refused(bytes(changed), tmp_path, "is damaged: its content does not match its digest")
    # Wherever it is, some refusal says so.
    for place in range(0, len(content), 97):
        changed = bytearray(content)
        changed[place] ^= 4
        refused(bytes(changed), tmp_path, "^snm.load: ")


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "weights")
    save_file({"weight": torch.zeros(3)}, tmp_path / "named", {"format": "pt"})
    for name in ("weights", "named"):
        content = (tmp_path / name).read_bytes()
        refused(content, tmp_path, "is a safetensors file, but none that snm.save wrote")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "pickled")
    refused((tmp_path / "pickled").read_bytes(), tmp_path, "is no complete safetensors file")
    with pytest.raises(FileNotFoundError):
        snm.load(tmp_path / "missing")


def forged(
    path: Path,
    folder: Path,
    change: Callable[[Any], Any],
    tensors: Callable[[dict[str, Tensor]], None] = lambda _: None,
) -> bytes:
    """A file with other content, and the digest that its content has."""
    with safe_open(path, framework="pt") as file:
        content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = json.loads(file.metadata()["snm"])
    changed = change(text)
    tensors(content)
    text = changed if isinstance(changed, str) else json.dumps(text)
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(content.items()):
        digest.update(b"\0" + json.dumps([name, str(tensor.dtype), [*tensor.shape]]).encode())
        digest.update(bytes(tensor.reshape(-1).view(torch.uint8).tolist()))
    metadata = {"snm": text, "sha256": digest.hexdigest()}
    save_file(content, folder / "forged", metadata)
    return (folder / "forged").read_bytes()


def test_forged_file_without_a_change_loads(path: Path, tmp_path: Path) -> None:
    forged(path, tmp_path, lambda _: None)
    assert_same(snm.load(tmp_path / "forged"), snm.load(path))


def calls(text: Any, kind: str) -> list[dict[str, Any]]:
    """The calls of a kind in a file's text."""
    program = text["network"]["program"]["Program"]
    steps = [step for part in ("static", "temporal", "tail") for step in program[part]["tuple"]]
    return [step["Call"] for step in steps if step.get("Call", {}).get("kind") == kind]


def aim(kind: str, target: str, *args: Any) -> Callable[[Any], None]:
    """Lets the first call of a kind call something else."""

    def change(text: Any) -> None:
        call = calls(text, kind)[0]
        call["target"] = target
        if args:
            call["args"] = {"tuple": list(args)}

    return change


def become(kind: str, other: str, target: str) -> Callable[[Any], None]:
    """Makes of the first call of a kind one of another kind."""

    def change(text: Any) -> None:
        calls(text, kind)[0].update(kind=other, target=target)

    return change


def put(*keys: Any, value: Any) -> Callable[[Any], None]:
    """Puts something else at a place in the network's JSON."""

    def change(text: Any) -> None:
        place = text["network"]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def nested(depth: int) -> Callable[[Any], str]:
    """Puts lists within lists in place of the output."""
    lists = "[" * depth + "]" * depth
    return lambda text: json.dumps(text).replace('"output": ', f'"output": {lists}, "": ')


def move(part: str, old: str, new: str) -> Callable[[Any], None]:
    """Gives a module or tensor another path."""

    def change(text: Any) -> None:
        entries = text["network"][part]
        entries[new] = entries.pop(old)

    return change


PROGRAM = ("program", "Program")
X = {"Value": {"name": "x"}}
NOT_CALLED = "is none of the operations that a file may hold"
NO_PART = "reads or calls what is no part of the network"

ATTACKS: dict[str, tuple[Callable[[Any], None], str]] = {
    "os.system": (aim("function", "os.system", "touch x"), NOT_CALLED),
    "posix.system": (aim("function", "posix.system", "touch x"), NOT_CALLED),
    "builtins.eval": (aim("function", "builtins.eval", "1"), NOT_CALLED),
    "builtins.__import__": (aim("function", "builtins.__import__", "os"), NOT_CALLED),
    "torch.load": (aim("function", "torch.load", "x"), NOT_CALLED),
    "torch.hub.load": (aim("function", "torch.hub.load", "x", "y"), NOT_CALLED),
    "function in the wrong module": (aim("function", "operator.cat"), NOT_CALLED),
    "getattr class": (aim("function", "builtins.getattr", X, "__class__"), NOT_CALLED),
    "getattr data": (aim("function", "builtins.getattr", X, "data"), NOT_CALLED),
    "getattr of a value": (aim("function", "builtins.getattr", X, X), NOT_CALLED),
    "getattr default": (aim("function", "builtins.getattr", X, "shape", 0), NOT_CALLED),
    "getattr as a method": (aim("method", "builtins.getattr", X, "shape"), NOT_CALLED),
    "method __class__": (aim("method", "__class__", X), NOT_CALLED),
    "method __reduce_ex__": (aim("method", "__reduce_ex__", X, 2), NOT_CALLED),
    "method numpy": (aim("method", "numpy", X), NOT_CALLED),
    "method of a string": (aim("method", "split", "a b"), NOT_CALLED),
    "part unknown": (put("unknown", value=1), "the graph has the parts"),
    "function as a method": (become("function", "method", "torch.cat"), NOT_CALLED),
    "attribute globals": (aim("attribute", "__init__.__globals__"), NO_PART),
    "attribute of a module": (aim("attribute", "fc"), NO_PART),
    "attribute forward": (aim("attribute", "fc.forward"), NO_PART),
    "module of the root": (aim("module", ""), NO_PART),
    "module of neurons": (aim("module", "relu"), NO_PART),
    "module missing": (aim("module", "nothing"), NO_PART),
    "kind": (become("function", "eval", "torch.cat"), "Call cannot have str 'eval' as kind"),
    "target a list": (
        lambda text: calls(text, "function")[0].update(target=["torch.cat"]),
        "Call cannot have list",
    ),
    "other layer": (
        put("modules", "fc", "class", value="LSTM"),
        "fc is dict .* none of the layers",
    ),
    "subclass of a layer": (put("modules", "fc", "class", value="NonDynamicallyQuantizable"), "fc"),
    "layer by its path": (put("modules", "fc", "class", value="torch.nn.Linear"), "fc is dict"),
    "base class": (put("modules", "fc", "class", value="Module"), "fc is dict"),
    "class a list": (put("modules", "fc", "class", value=["Linear"]), "fc is dict"),
    "layer's device": (
        put("modules", "fc", "arguments", "device", value="cpu"),
        "fc: Linear cannot have str 'cpu' as device",
    ),
    "layer's unknown argument": (
        put("modules", "fc", "arguments", "hook", value=1),
        "fc: Linear cannot be made: ",
    ),
    "layer's size": (
        put("modules", "fc", "arguments", "out_features", value=9),
        r"fc: weight must be \[9, 16\], got \[8, 16\]",
    ),
    "layer's huge size": (
        put("modules", "fc", "arguments", "out_features", value=10**30),
        "fc: Linear cannot be made: ",
    ),
    "layer's step": (
        put("modules", "fc", "arguments", "bias", value={"Repeat": {"name": "a", "value": "b"}}),
        "fc: Linear cannot have Repeat",
    ),
    "rule out of range": (
        put("modules", "relu", "arguments", "rule", "SNMRule", "max_spikes", value=0),
        "relu: SNMRule cannot be made: SNMRule: max_spikes must be 1 to 127",
    ),
    "rule of a wrong type": (
        put("modules", "relu", "arguments", "rule", "SNMRule", "strict", value="no"),
        "relu: SNMRule cannot have str 'no' as strict",
    ),
    "no rule": (put("modules", "relu", "arguments", "rule", value=1), "SNMNeuron cannot have int"),
    "backend": (put("modules", "relu", "arguments", "backend", value="os"), "SNMNeuron cannot"),
    "threshold twice": (
        put("modules", "relu", "arguments", "threshold", value=1.0),
        "SNMNeuron has no 'threshold'",
    ),
    "neuron elsewhere": (
        move("modules", "relu", "other"),
        "other: SNMNeuron must have a threshold",
    ),
    "module at __init__": (move("modules", "unflatten", "__init__"), "cannot be the path"),
    "module in forward": (move("modules", "unflatten", "forward.x"), "cannot be the path"),
    "module at nothing": (move("modules", "unflatten", ""), "Unflatten has the tensors"),
    "module in nothing": (move("modules", "unflatten", "a..b"), "cannot be the path"),
    "tensor at __dict__": (move("tensors", "shift", "__dict__"), "cannot be the path"),
    "tensor in a layer": (move("tensors", "shift", "fc.other"), "fc: Linear has the tensors"),
    "tensor missing": (put("tensors", "shift", "tensor", value="nothing"), "shift is to be"),
    "tensor unnamed": (put("tensors", "shift", "tensor", value=None), "shift is to be"),
    "tensor unused": (
        lambda text: text["network"]["tensors"].pop("shift"),
        r"nothing reads the tensors \['shift'\]",
    ),
    "buffer for a parameter": (put("tensors", "fc.weight", "parameter", value=False), "fc: weight"),
    "strides with gaps": (put("tensors", "fc.weight", "stride", value=[17, 1]), "the strides"),
    "strides below zero": (put("tensors", "fc.weight", "stride", value=[-16, 1]), "the strides"),
    "strides that overlap": (put("tensors", "fc.weight", "stride", value=[0, 1]), "the strides"),
    "strides of another rank": (put("tensors", "fc.weight", "stride", value=[1]), "the strides"),
    "strides no list": (put("tensors", "fc.weight", "stride", value="a"), "the strides"),
    "program a string": (put("program", value="os"), "the program is str 'os'"),
    "program a step": (put("program", value=X), "the program is Value"),
    "program unknown": (put("program", value={"os": {}}), "stands for no value"),
    "field unknown": (put(*PROGRAM, "run", value=1), "Program has no 'run'"),
    "field missing": (lambda text: text["network"]["program"]["Program"].pop("tail"), "lacks tail"),
    "field of a wrong type": (put(*PROGRAM, "images", value=3), "Program cannot have int 3"),
    "step of a wrong type": (put(*PROGRAM, "static", "tuple", 0, value=X), "Program cannot have"),
    "output missing": (put(*PROGRAM, "output", value="nothing"), "nothing makes the output"),
    "value missing": (aim("method", "neg", X), r"reads \['x'\], which no step before it makes"),
    "value freed": (
        lambda text: text["network"]["program"]["Program"]["frees"]["dict"].update(
            {calls(text, "module")[0]["name"]: {"tuple": [calls(text, "module")[0]["name"]]}}
        ),
        "which no step before it makes",
    ),
    "frees nothing": (put(*PROGRAM, "frees", value={"dict": {}}), "the program does not say what"),
    "images change": (put(*PROGRAM, "images_change", value=True), "made for encoder='direct'"),
    "encoder": (put("settings", "encoder", value="os"), "SpikingNetwork cannot have str 'os'"),
    "model": (put("settings", "model", value=X), "SpikingNetwork has no 'model'"),
    "setting unknown": (put("settings", "hook", value=1), "SpikingNetwork has no 'hook'"),
    "chunk_steps": (put("settings", "chunk_steps", value=0), "SpikingNetwork cannot be made"),
    "image_shape": (put("settings", "image_shape", value=[2]), "SpikingNetwork cannot have list"),
    "dtype": (put("settings", "image_shape", value={"dtype": "os"}), "'os' is none of"),
    "device": (put("settings", "image_shape", value={"device": "os"}), "device cannot be made"),
    "slice": (put("settings", "image_shape", value={"slice": [1]}), "a start, a stop and a step"),
    "size": (put("settings", "image_shape", value={"Size": ["a"]}), "must be integers"),
    "huge size": (put("settings", "image_shape", value={"Size": [10**30]}), "must be integers"),
    "modules no object": (put("modules", value=[]), "modules must be an object, got list"),
    "network no object": (lambda text: text.update(network=3), "the graph must be an object"),
    "no network": (lambda text: text.pop("network"), "holds no network"),
    "no format": (lambda text: text.pop("format"), "has no format number"),
    "newer format": (
        lambda text: text.update(format=2, version="9.1"),
        "is written by a newer version of snm-kernels, str '9.1': format 2",
    ),
    "text no object": (lambda _: "[]", "the text of a file must be an object"),
    "text no JSON": (lambda _: "{", "holds no JSON"),
    "text too deep": (lambda _: "[" * 100_000, "is nested too deeply|holds no JSON"),
    # Which is too deep for whom depends on Python: since 3.12 fewer calls count towards its limit.
    "value deep": (nested(900), "is nested too deeply|Program cannot have list"),
    "value too deep": (nested(3_000), "is nested too deeply"),
}


@pytest.mark.parametrize(("change", "match"), ATTACKS.values(), ids=ATTACKS)
def test_forged_file_is_refused(
    change: Callable[[Any], None], match: str, path: Path, tmp_path: Path
) -> None:
    refused(forged(path, tmp_path, change), tmp_path, match)


def test_forged_tensors_are_refused(path: Path, tmp_path: Path) -> None:
    def add(tensors: dict[str, Tensor]) -> None:
        tensors["more"] = torch.zeros(2)

    def negate(tensors: dict[str, Tensor]) -> None:
        tensors["relu.threshold"] = -tensors["relu.threshold"]

    def narrow(tensors: dict[str, Tensor]) -> None:
        tensors["relu.threshold"] = tensors["relu.threshold"].half()

    for change, match in (
        (add, r"nothing reads the tensors \['more'\]"),
        (negate, "relu: SNMNeuron cannot be made: SNMNeuron: threshold must be > 0"),
        (narrow, "relu: SNMNeuron must have a threshold in float32"),
    ):
        refused(forged(path, tmp_path, lambda _: None, change), tmp_path, match)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    return [place for key in keys for place in [(value, key), *places(value[key])]]


JUNK: tuple[Any, ...] = (
    *(None, True, -1, 2**63, 10**30, 1.5, "", "x", "__class__", "a..b", [], {}, [[]], {"a": 1}),
    *({"tuple": [1]}, {"Size": [-1]}, {"slice": [[], {}, None]}, {"dict": {"": 1}}, {"float": 1}),
    *(X, {"Value": {"name": []}}, {"Value": None}, {"dtype": "float32"}, {"device": ""}),
    *({"ellipsis": 3}, {"Pooling": {}}, {"SNMRule": {}}, {"Repeat": {"name": "x", "value": "y"}}),
)


@pytest.mark.parametrize("name", ["arithmetic", "branches", "pre-activation"])
def test_any_other_graph_is_built_or_refused(name: str) -> None:
    graph, tensors = blueprint.blueprint_of(converted(name))
    text, pick = json.dumps(graph), random.Random(0)
    refusals = 0
    for _ in range(200):
        other = json.loads(text)
        container, key = pick.choice(places(other))
        container[key] = pick.choice(JUNK)
        try:
            blueprint.build(other, tensors, torch.device("cpu"))
        except as_json.Refusal:
            refusals += 1
    assert refusals > 100


WATCHED = """
import pickle, sys, torch, snm

path = sys.argv[1]
snm.load(path)
pickle.load = pickle.loads = pickle.Unpickler = torch.load = None
seen = []
events = ("import", "compile", "exec", "pickle.find_class", "subprocess.Popen", "os.system")


def note(event, arguments):
    if event in events:
        seen.append((event, arguments))


sys.addaudithook(note)
snm.load(path)
found = list(seen)
exec("import colorsys")
assert len(seen) > len(found), "the hook sees nothing"
print(found)
"""


def test_loading_imports_compiles_and_unpickles_nothing(path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WATCHED, str(path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_files_know_only_their_tables() -> None:
    assert not {"eval", "exec", "compile", "open", "__import__"} & {
        name.rpartition(".")[2] for name in as_json.FUNCTIONS
    }
    assert all(cls.__module__.startswith("torch.nn.modules.") for cls in as_json.MODULES.values())
    assert not any(name.startswith("_") for name in as_json.METHODS)
    assert files._FORMAT == 1

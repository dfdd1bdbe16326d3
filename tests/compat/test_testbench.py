"""A simulator in C that knows nothing but the header gives the golden vectors, bit for bit."""

import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snm
import snm_kernels
from snm.compat.testbench import write_testbench
from snm.compat.testbench_layers import integers_of_rule
from snm.demo.data import load_images, load_network
from snm.nn.integer import SILENT, IntegerConv, IntegerScale
from snm_kernels import PRESETS, SNMRule, SNMState
from support.cases import RULES
from support.networks import exact_network

SIMULATOR = Path(__file__).with_name("testbench.c")
pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")

T = 7
ALL_RULES = {**{name: snm.preset(name) for name in PRESETS}, **RULES}
STRICT = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic")

Arrays = Mapping[str, np.ndarray[Any, Any]]


class WithPooling(nn.Module):
    """Blocks behind a max pooling, with a shortcut without weights and one with."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.conv2 = nn.Conv2d(8, 8, (1, 3), padding=(0, 1))
        self.conv3 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.short = nn.Conv2d(8, 12, 1, stride=2)
        self.conv4 = nn.Conv2d(12, 6, (2, 1))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem(x)))
        x = F.relu(self.conv2(F.relu(self.conv1(x))) + x)
        x = F.relu(self.conv3(x) + self.short(x))
        x = F.relu(self.conv4(F.adaptive_max_pool2d(x, (3, 2))))
        return self.head(x.mean((2, 3)))


class Pieces(nn.Sequential):
    """In one dimension, with windows that do not fit, and an average that drives neurons."""

    def __init__(self) -> None:
        super().__init__(
            nn.AvgPool1d(2),
            nn.Conv1d(2, 6, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool1d(3, 2, ceil_mode=True),
            nn.Conv1d(6, 6, 3, dilation=2, groups=3),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(18, 7),
            nn.ReLU(),
        )
        for layer in self:
            if isinstance(layer, nn.Conv1d | nn.Linear):
                nn.init.constant_(layer.bias, 0.25)


def integers_of(model: nn.Module, images: Tensor, **options: Any) -> snm.SpikingNetwork:
    options = {"preset": "snm-zero", "norm": "channel"} | options
    return snm.quantize(snm.convert(model.eval(), images, **options), images)


def packaged() -> tuple[snm.SpikingNetwork, Tensor]:
    images = load_images()[0][:32]
    return integers_of(load_network(), images), images


def with_pooling() -> tuple[snm.SpikingNetwork, Tensor]:
    torch.manual_seed(0)
    images = torch.randn(16, 3, 13, 11)
    return integers_of(WithPooling(), images), images


def pieces(**options: Any) -> tuple[snm.SpikingNetwork, Tensor]:
    torch.manual_seed(1)
    images = torch.rand(16, 2, 45)
    return integers_of(Pieces(), images, **options), images


def with_biases() -> tuple[snm.SpikingNetwork, Tensor]:
    """Thresholds and biases of neurons each."""
    torch.manual_seed(2)
    images = torch.rand(32, 2, 6, 5)
    layers = nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 6), nn.ReLU()
    model = nn.Sequential(*layers, nn.Linear(6, 4)).eval()
    net = snm.convert(model, images, preset="snm-half", norm="neuron")
    net.layers["1"].bias = torch.rand(3, 4, 3) / 4
    net.layers["4"].bias = torch.rand(6) / 4
    return snm.quantize(net, images), images


def exact(name: str) -> tuple[snm.SpikingNetwork, Tensor]:
    model, calibration, images = exact_network(name)
    return integers_of(model, calibration), images


NETS = {
    "packaged": packaged,
    "residual, max pooling": with_pooling,
    "biases": with_biases,
    "bursts": lambda: pieces(preset="burst"),
    "counts": lambda: pieces(readout="count", preset="snm"),
    **{
        name: partial(exact, name)
        for name in ("plain", "residual", "shared convolution", "ends in ReLU")
    },
    **{name: partial(exact, name) for name in ("sized", "conv1d")},
}


def arrays_of(file: Path) -> Arrays:
    with np.load(file) as arrays:
        return dict(arrays)


def simulated(folder: Path, vectors: Arrays, network: Arrays) -> Arrays:
    """What the simulator makes of the vectors' input, by the names of the vectors."""
    program = folder / "testbench"
    command = ["cc", *STRICT, "-I", str(folder), str(SIMULATOR), "-o", str(program)]
    subprocess.run(command, check=True, timeout=300)
    images, steps = len(vectors["input"]), int(vectors["timesteps"])
    (folder / "input").write_bytes(vectors["input"].astype("<i4").tobytes())
    files = str(folder / "input"), str(images), str(steps), str(folder / "output")
    subprocess.run([str(program), *files], check=True, timeout=300)
    content, at = (folder / "output").read_bytes(), 0
    made: dict[str, list[np.ndarray[Any, Any]]] = {}

    def take(name: str, dtype: type[np.generic], size: int) -> None:
        nonlocal at
        found = np.frombuffer(content, dtype, size, at)
        at += found.nbytes
        made.setdefault(name, []).append(found)

    neurons = [path for path in network["layers"] if network[f"{path}.kind"] == "neurons"]
    read_out = [path for path in neurons if network[f"{path}.counts"] >= 0]
    for _ in range(images):
        for _ in range(steps):
            for path in neurons:
                take(f"{path}.spikes", np.int8, network[f"{path}.size"])
                take(f"{path}.membranes", np.int32, network[f"{path}.size"])
        for path in read_out:
            take(f"{path}.counts", np.int32, network[f"{path}.size"])
        size = network["values"][network["output"], 0]
        take("sums", np.int64, size)
        if "logits" in vectors:
            take("logits", np.float32, size)
    assert at == len(content)
    shaped = {}
    for name, parts in made.items():
        if name in vectors:
            expected = vectors[name]
            found = np.stack(parts)
            if name.endswith((".spikes", ".membranes")):
                found = found.reshape(images, steps, -1).swapaxes(0, 1)
            shaped[name] = found.reshape(expected.shape)
    return shaped


@pytest.mark.parametrize("name", NETS)
def test_the_header_alone_gives_the_vectors(name: str, tmp_path: Path) -> None:
    net, images = NETS[name]()
    write_testbench(net, images[:3], tmp_path, timesteps=T)
    vectors, network = arrays_of(tmp_path / "vectors.npz"), arrays_of(tmp_path / "network.npz")
    found = simulated(tmp_path, vectors, network)
    assert found.keys() == vectors.keys() - {"timesteps", "input"}
    for key, value in found.items():
        assert value.dtype == vectors[key].dtype
        assert np.array_equal(value, vectors[key]), key
    for path in net.layers:
        assert vectors[f"{path}.spikes"].any(), path
    answer = (
        vectors["logits"]
        if net.readout == "mean"
        else next(vectors[f"{fire.path}.counts"] for fire in net.program.neurons if fire.read_out)
    )
    assert np.array_equal(answer, net(images[:3], timesteps=T).numpy())


@pytest.mark.parametrize("constant", ["0_weight", "0_bias", "4_lower", "4_threshold", "4_start"])
def test_one_other_constant_gives_other_vectors(constant: str, tmp_path: Path) -> None:
    net, images = with_pooling()
    write_testbench(net, images[:4], tmp_path, timesteps=12)
    header = tmp_path / "network.h"
    begins, name, rest = header.read_text().partition(f" snm_{constant}[")
    head, brace, numbers = rest.partition("{\n  ")
    first, comma, others = numbers.partition(",")
    changed = int(first) // 2 - 500 if "weight" not in constant else -int(first)
    changed = max(changed, 1) if "threshold" in constant else changed
    header.write_text(begins + name + head + brace + str(changed) + comma + others)
    vectors, network = arrays_of(tmp_path / "vectors.npz"), arrays_of(tmp_path / "network.npz")
    found = simulated(tmp_path, vectors, network)
    assert any(not np.array_equal(value, vectors[key]) for key, value in found.items())


def test_archive_holds_the_constants_of_the_layers(tmp_path: Path) -> None:
    net, images = with_pooling()
    write_testbench(net, images[:1], tmp_path, timesteps=2)
    network = arrays_of(tmp_path / "network.npz")
    seen = 0
    for path, module in net.model.named_modules():
        if isinstance(module, IntegerConv):
            assert np.array_equal(network[f"{path}.weight"], module.weight.numpy())
            assert network[f"{path}.weight"].dtype == np.int8
            assert (module.bias is None) == (f"{path}.bias" not in network)
            seen += 1
        elif isinstance(module, IntegerScale):
            assert np.array_equal(network[f"{path}.factor"], module.factor.numpy())
            seen += 1
    for path, neuron in net.layers.items():
        assert np.array_equal(network[f"{path}.threshold"], neuron.threshold.numpy().reshape(-1))
        assert network[f"{path}.threshold"].dtype == network[f"{path}.start"].dtype == np.int32
        assert (network[f"{path}.count_min"], network[f"{path}.count_max"]) == (0, SILENT)
    # Two max poolings, an average and the readout.
    assert seen + len(net.layers) + 4 == len(network["layers"])
    assert {"pool.windows", "readout.unit", "pixels.step"} <= network.keys()


@pytest.mark.parametrize("rule", ALL_RULES.values(), ids=ALL_RULES)
def test_integers_of_rules_are_those_of_the_op(rule: SNMRule) -> None:
    threshold = torch.tensor([1, 2, 3, 7, 100, 2**24 - 1, SILENT], dtype=torch.int32)
    start, lower = map(torch.from_numpy, integers_of_rule(threshold.numpy(), rule))
    assert start.dtype == lower.dtype == torch.int32
    drive = torch.zeros(1, len(threshold), dtype=torch.int32)
    spikes, (v, _) = snm_kernels.snm(drive, threshold, rule=rule, emit="spike")
    assert torch.equal(v + spikes[0] * threshold, start)
    low, high = rule.count_bounds
    count = torch.full_like(threshold, min(max(low, -(2**30)) + 1, high))
    sent = [
        snm_kernels.snm(drive, threshold, rule=rule, state=SNMState(u, count), emit="spike")[0][0]
        for u in (lower, (lower.long() - 1).clamp(min=-(2**31)).int())
    ]
    corrects = (lower > -(2**31)) & (count > low)
    assert not (sent[0] < 0).any()
    assert torch.equal(sent[1] < 0, corrects)
    may = rule.negative_threshold is not None and low < high
    assert torch.equal(corrects, (threshold != SILENT) & may)


class Joined(nn.Module):
    """A concatenation, and beside it spikes in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 1)
        self.mix, self.swap, self.last = (nn.Conv2d(n, 2, 1) for n in (4, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        one, two = F.relu(self.one(x)), F.relu(self.two(x))
        mixed = self.mix(torch.cat([one, two], 1)) + self.swap(one.flip(1))
        return self.last(F.relu(mixed)).flatten(1)


def test_all_that_is_no_layer_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 1, 6, 6)
    net = integers_of(Joined(), images)
    with pytest.raises(snm.ConversionError, match=r"^write_testbench: 2 operations") as error:
        write_testbench(net, images, tmp_path / "out", timesteps=2)
    assert [(offence.path, offence.operation) for offence in error.value.offences] == [
        ("cat", "cat"),
        ("flip", "flip"),
    ]
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    net, images = pieces()
    folder, one = tmp_path / "out", images[:1]
    with pytest.raises(TypeError, match="must be a SpikingNetwork, got Linear"):
        write_testbench(nn.Linear(2, 2), one, folder, timesteps=1)  # type: ignore[arg-type]
    floating = snm.convert(Pieces().eval(), images, norm="channel")
    with pytest.raises(ValueError, match=r"snm\.quantize first"):
        write_testbench(floating, one, folder, timesteps=1)
    with pytest.raises(ValueError, match="at least one, got none"):
        write_testbench(net, images[:0], folder, timesteps=1)
    with pytest.raises(ValueError, match="timesteps must be"):
        write_testbench(net, one, folder, timesteps=0)
    with pytest.raises(ValueError, match="got 'nowhere'; there are 2, 5, 7, 10"):
        write_testbench(net, one, folder, timesteps=1, layers="nowhere")
    for prefix in ("", "1st", "a-b", "_a", "a b", "é"):
        with pytest.raises(ValueError, match="prefix must be letters"):
            write_testbench(net, one, folder, timesteps=1, prefix=prefix)
    frames, _ = pieces(encoder="frames")
    with pytest.raises(ValueError, match="takes a network with encoder='direct'"):
        write_testbench(frames, one, folder, timesteps=1)
    assert not folder.exists()


def test_chosen_layers_and_another_prefix(tmp_path: Path) -> None:
    net, images = pieces()
    for prefix in ("first", "second"):
        folder = tmp_path / prefix
        write_testbench(net, images[:2], folder, timesteps=3, layers="5", prefix=prefix)
        vectors = arrays_of(folder / "vectors.npz")
        names = {"timesteps", "input", "5.spikes", "5.membranes", "10.counts", "sums", "logits"}
        assert vectors.keys() == names
    both = tmp_path / "both.c"
    both.write_text(
        '#include "first/network.h"\n#include "second/network.h"\n#include "first/network.h"\n'
        "int main(void) { return first_layers[0].kind != SECOND_SUM_POOL || "
        "first_values[FIRST_OUTPUT].size != SECOND_OUTPUT_SIZE || second_layers[0].in; }\n"
    )
    subprocess.run(["cc", *STRICT, str(both), "-o", str(tmp_path / "both")], check=True)
    subprocess.run([str(tmp_path / "both")], check=True)

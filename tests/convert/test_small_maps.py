"""Convolutions over small maps give what they gave, in another memory format."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import snm
from snm.nn.small_maps import SmallMapConv2d, gains

LARGE = 256


def dyadic(conv: nn.Conv2d) -> nn.Conv2d:
    """Weights of so few bits that every sum is exact, in whatever order."""
    with torch.no_grad():
        conv.weight.copy_(torch.randint(-4, 5, conv.weight.shape) / 64)
        if conv.bias is not None:
            conv.bias.copy_(torch.randint(-4, 5, conv.bias.shape) / 64)
    return conv


def network() -> nn.Module:
    """Maps of 16×16, 4×4 and 2×2; only the last two convolutions gain."""
    torch.manual_seed(0)
    layers = [
        dyadic(nn.Conv2d(2, LARGE, 3, padding=1)),
        nn.ReLU(),
        nn.AvgPool2d(4),
        dyadic(nn.Conv2d(LARGE, LARGE, 3, padding=1, bias=False)),
        nn.ReLU(),
        dyadic(nn.Conv2d(LARGE, LARGE, 3, stride=2, padding=1, padding_mode="circular")),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * LARGE, 3),
    ]
    return nn.Sequential(*layers).eval()


def images(count: int) -> torch.Tensor:
    return torch.randint(0, 9, (count, 2, 16, 16)) / 8


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"bias": False}])
@torch.no_grad()
def test_same_sums(
    options: dict[str, int], dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    conv = dyadic(nn.Conv2d(LARGE, LARGE, 3, padding=1, **options)).to(dtype)
    x = (torch.randint(-2, 3, (3, LARGE, 4, 4)) / 2).to(dtype)
    x, conv = x.to(memory_format=memory_format), conv.to(memory_format=memory_format)
    swapped = SmallMapConv2d.of(conv)
    assert torch.equal(swapped(x), conv(x))
    assert swapped.weight.is_contiguous()
    assert swapped(x).is_contiguous()
    assert swapped.to(memory_format=torch.channels_last)(x).is_contiguous()


def test_the_original_stays_as_it_was() -> None:
    conv = nn.Conv2d(LARGE, LARGE, 3).to(memory_format=torch.channels_last)
    before = conv.weight
    SmallMapConv2d.of(conv)
    assert conv.weight is before
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("module", "output", "expected"),
    [
        (nn.Conv2d(LARGE, LARGE, 3), (2, LARGE, 4, 4), True),
        (nn.Conv2d(LARGE, LARGE, 3), (2, LARGE, 6, 6), True),
        (nn.Conv2d(LARGE, LARGE, 3), (2, LARGE, 7, 7), False),
        (nn.Conv2d(LARGE, LARGE, 3), (2, LARGE, 1, 1), False),
        (nn.Conv2d(128, 128, 3), (2, 128, 4, 4), False),
        (nn.Conv2d(1024, 1024, 1), (2, 1024, 4, 4), False),
        (nn.Conv2d(2048, 2048, 3, groups=2048), (2, 2048, 4, 4), False),
        (nn.Conv1d(1024, 1024, 3), (2, 1024, 4), False),
    ],
    ids=str,
)
def test_where_it_gains(module: nn.Module, output: tuple[int, ...], expected: bool) -> None:
    assert gains(module, output) is expected


@torch.no_grad()
def test_a_network_swaps_them_and_counts_the_same_spikes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network()
    original = copy.deepcopy(model)
    net = snm.convert(model, images(8), preset="snm-zero", norm="channel")
    kinds = [type(net.model.get_submodule(path)) for path in ("0", "3", "5")]
    assert kinds == [nn.Conv2d, SmallMapConv2d, SmallMapConv2d]
    net.print_tree()
    convolutions = [line for line in capsys.readouterr().out.splitlines() if "Conv2d" in line]
    assert [line.split()[-1] for line in convolutions] == ["kept"] * 3
    assert all(type(layer) is type(old) for layer, old in zip(model, original, strict=True))

    plain = copy.deepcopy(net)
    for path in ("3", "5"):
        plain.model.get_submodule(path).__class__ = nn.Conv2d
    batch = images(5).to(memory_format=torch.channels_last)
    assert torch.equal(net(batch, timesteps=8), plain(batch, timesteps=8))

    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(batch, timesteps=8), net(batch, timesteps=8))

    snm.save(net, tmp_path / "net.safetensors")
    loaded = snm.load(tmp_path / "net.safetensors")
    assert isinstance(loaded.model.get_submodule("3"), SmallMapConv2d)
    assert torch.equal(loaded(batch, timesteps=8), net(batch, timesteps=8))


@torch.no_grad()
def test_a_module_with_a_large_map_as_well_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = dyadic(nn.Conv2d(LARGE, LARGE, 3, padding=1))
            self.pool = nn.AvgPool2d(2)
            self.relu = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(self.conv(x))
            return self.conv(self.pool(x)).flatten(1)

    net = snm.convert(Twice().eval(), torch.rand(4, LARGE, 8, 8), norm="channel")
    assert type(net.model.get_submodule("conv")) is nn.Conv2d


def test_weights_are_packed_once_per_move_not_per_call() -> None:
    conv = SmallMapConv2d.of(nn.Conv2d(LARGE, LARGE, 3).to(memory_format=torch.channels_last))
    for move in (lambda c: c.to(memory_format=torch.channels_last), nn.Module.double):
        moved = move(conv)
        assert moved.weight.is_contiguous()
        assert isinstance(moved.weight, nn.Parameter)


@torch.no_grad()
def test_float16_runs_in_the_format_it_has() -> None:
    conv = SmallMapConv2d.of(dyadic(nn.Conv2d(LARGE, LARGE, 3))).half()
    x = torch.ones(2, LARGE, 4, 4, dtype=torch.float16).to(memory_format=torch.channels_last)
    plain = copy.deepcopy(conv)
    plain.__class__ = nn.Conv2d
    assert conv(x).stride() == plain(x).stride()


@torch.no_grad()
def test_shared_weights_stay_shared(tmp_path: Path) -> None:
    first, second = (dyadic(nn.Conv2d(LARGE, LARGE, 3, padding=1, bias=False)) for _ in range(2))
    second.weight = first.weight
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(4096, 3))
    net = snm.convert(model.eval(), torch.rand(4, LARGE, 4, 4), norm="channel")
    snm.save(net, tmp_path / "net.safetensors")
    for found in (net, snm.load(tmp_path / "net.safetensors")):
        assert found.model.get_submodule("0").weight is found.model.get_submodule("2").weight


def test_export_sees_a_plain_convolution() -> None:
    conv = SmallMapConv2d.of(nn.Conv2d(4, 4, 3, padding=1).eval())
    exported = torch.export.export(conv, (torch.rand(2, 4, 3, 3),))
    called = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert "aten.conv2d.default" in called
    assert not any(name.startswith("snm.") for name in called)

"""Statistics of activations are exact, bounded and mergeable, and give the thresholds they say."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

import snm
from snm import Statistics
from snm.conversion.calibration import observe, open_images
from snm.conversion.histogram import bins_for
from snm.conversion.lowering.prepare import prepare
from snm.conversion.thresholds import Choice, choose_thresholds
from support.networks import NETWORKS, exact_network
from support.pairwise import every_two

NORMS = ("neuron", "channel", "layer")
STATISTICS = ("max", "percentile", "mse")
SIZE = (3, 4, 5)

quiet = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


def observed(norm: str, batches: Sequence[Tensor], statistic: str = "percentile") -> Statistics:
    """What is known after batches of activations of a layer."""
    statistics = Statistics(norm, statistic, batches[0][:1])
    for batch in batches:
        statistics.update("layer", batch)
        statistics.images += len(batch)
    return statistics


def level(statistics: Statistics, statistic: str, percentile: float = 99.9, levels: int = 32):
    found = statistics.layers["layer"].level(statistic, percentile=percentile, levels=levels)
    return found.flatten()


def rows_of(activation: Tensor, norm: str) -> Tensor:
    """``[thresholds, n]``."""
    if norm == "layer":
        return activation.reshape(1, -1)
    return activation.transpose(0, 1).flatten(1) if norm == "channel" else activation.flatten(1).t()


def activations(count: int, seed: int = 0, spread: float = 2.0) -> Tensor:
    """Half of them zero, the rest of many orders of magnitude; a neuron and a channel are dead."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(2, count, *SIZE, generator=generator)
    values = (spread * normal[0]).exp().where(normal[1] > 0, 0.0)
    values[:, 1] = 0
    values[:, 0, 2, 2] = 0
    return values


def bin_width(largest: float, bins: int) -> float:
    """The range is no smaller than 2^-115, so that the width is a normal float32."""
    return math.ldexp(1.0, max(math.frexp(largest)[1], -115)) / bins


def assert_same(actual: Statistics, expected: Statistics, *, example: bool = False) -> None:
    found, known = actual.state_dict(), expected.state_dict()
    assert found.keys() == known.keys()
    for key, value in known.items():
        if example or key != "example":
            assert found[key].dtype == value.dtype
            assert torch.equal(found[key], value), key


@pytest.mark.parametrize("percent", [1e-6, 0.5, 50.0, 90.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("norm", NORMS)
def test_percentile_is_within_a_bin_of_the_sorted_values(norm: str, percent: float) -> None:
    values = activations(200)
    statistics = observed(norm, values.split(33))
    rows = rows_of(values, norm)
    found = level(statistics, "percentile", percent)
    assert found.dtype == torch.float32
    for row, threshold in zip(rows, found.tolist(), strict=True):
        fired = row[row > 0].sort().values
        if len(fired) == 0:
            assert threshold == 0
            continue
        largest = fired[-1].item()
        expected = fired[max(math.ceil(len(fired) * percent / 100), 1) - 1].item()
        assert 0 < threshold <= largest
        assert abs(threshold - expected) <= bin_width(largest, bins_for(len(rows)))


@pytest.mark.parametrize("norm", NORMS)
def test_largest_is_exact(norm: str) -> None:
    values = activations(50)
    statistics = observed(norm, values.split(7))
    expected = rows_of(values, norm).amax(1)
    assert torch.equal(level(statistics, "max"), expected)
    assert torch.equal(level(statistics, "percentile", 100), expected)


@pytest.mark.parametrize("scale", [2.0**-125, 2.0**-115, 1.0, 2.0**110])
@pytest.mark.parametrize("norm", NORMS)
def test_counts_are_those_of_the_final_range(norm: str, scale: float) -> None:
    values = activations(64).sort(0).values * scale
    layer = observed(norm, values.split(1)).layers["layer"]
    assert layer.counts is not None
    for row, counts in zip(rows_of(values, norm), layer.counts, strict=True):
        fired = row[row > 0].double()
        width = bin_width(fired.max().item(), len(counts)) if len(fired) else 1.0
        expected = torch.bincount((fired / width).long(), minlength=len(counts))
        assert torch.equal(counts.long(), expected)


@given(
    norm=st.sampled_from(NORMS),
    statistic=st.sampled_from(STATISTICS),
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.1, 3.0, 12.0]),
    cuts=st.lists(st.integers(1, 39), min_size=1, max_size=6, unique=True),
    data=st.data(),
)
def test_merged_equals_one_pass_in_any_order(
    norm: str, statistic: str, seed: int, spread: float, cuts: list[int], data: st.DataObject
) -> None:
    values = activations(40, seed, spread)
    whole = observed(norm, [values], statistic)
    shuffled = values[torch.randperm(40, generator=torch.Generator().manual_seed(seed))]
    parts = shuffled.tensor_split(sorted(cuts))
    in_batches = observed(norm, parts, statistic)
    assert_same(in_batches, whole)
    apart = [observed(norm, [part], statistic) for part in data.draw(st.permutations(parts))]
    merged = apart[0]
    for other in apart[1:]:
        merged = merged.merge(other) if data.draw(st.booleans()) else other.merge(merged)
    assert_same(merged, whole)
    for asked in STATISTICS if statistic != "max" else ("max",):
        assert torch.equal(level(merged, asked), level(whole, asked))


def test_merging_changes_neither() -> None:
    halves = [observed("neuron", [part]) for part in activations(20).split(10)]
    before = [Statistics.from_state_dict(pickled(half.state_dict())) for half in halves]
    halves[0].merge(halves[1])
    for half, kept in zip(halves, before, strict=True):
        assert_same(half, kept)


def pickled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in state.items()}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_survives_its_tensors(norm: str, statistic: str) -> None:
    made = observed(norm, activations(20).split(6), statistic)
    restored = Statistics.from_state_dict(load(save(made.state_dict())))
    assert_same(restored, made, example=True)
    assert (restored.norm, restored.statistic, restored.images) == (norm, statistic, 20)


@pytest.mark.parametrize("statistic", ["percentile", "mse"])
@pytest.mark.parametrize(
    "extremes",
    [[1e-45], [1e-45, 1.2e-38], [3.4028234663852886e38], [1e-45, 3.4e38], [1.0, 1e-30, 65504.0]],
)
def test_tiny_and_huge_values(extremes: list[float], statistic: str) -> None:
    values = torch.tensor(extremes).view(-1, 1, 1, 1)
    forward, backward = (observed("layer", v.split(1)) for v in (values, values.flip(0)))
    assert_same(forward, backward)
    layer = forward.layers["layer"]
    assert layer.counts is not None
    assert int(layer.counts.sum()) == len(extremes)
    for percent in (1e-3, 50.0, 99.9):
        found = level(forward, statistic, percent)
        assert 0 < found.item() <= values.max().item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", NORMS)
def test_half_precision_is_widened(norm: str, dtype: torch.dtype) -> None:
    values = activations(20).to(dtype)
    assert_same(observed(norm, [values]), observed(norm, [values.float()]))


@pytest.mark.parametrize("norm", NORMS)
def test_channels_last_changes_nothing(norm: str) -> None:
    values = activations(20)
    other = values.contiguous(memory_format=torch.channels_last)
    assert_same(observed(norm, [other]), observed(norm, [values]))


def test_more_activations_than_float32_can_count() -> None:
    """In float32, 2^24 + 1 is 2^24."""
    count = 2**24 + 4096
    values = torch.full((1, count), 0.75)
    values[0, -3:] = 0.99
    statistics = observed("layer", [values])
    layer = statistics.layers["layer"]
    assert layer.counts is not None
    assert sorted(layer.counts[layer.counts > 0].tolist()) == [3, count - 3]
    width = 1 / 2048
    for rank, expected in ((count - 3, 0.75), (count - 2, 0.99)):
        # Half a rank below, so that rounding the percentage cannot pass the rank.
        found = level(statistics, "percentile", 100 * (rank - 0.5) / count).item()
        assert abs(found - expected) <= width


def test_counters_are_bounded() -> None:
    assert bins_for(1) == 2048
    for rows in (1, 4096, 4097, 25088, 2**19, 3_211_264):
        bins = bins_for(rows)
        assert 16 <= bins <= 2048
        assert bins & (bins - 1) == 0
        assert rows * bins <= max(2**23, 16 * rows)
    sizes = [
        {key: value.shape for key, value in observed("neuron", [part]).state_dict().items()}
        for part in (activations(2), activations(200))
    ]
    assert sizes[0] == sizes[1]


def squared_error(values: Tensor, threshold: float, levels: int) -> float:
    """Of sending values as so many equal steps up to a threshold."""
    values = values.double()
    step = threshold / levels
    return float(((values.clamp(max=threshold) / step).round() * step - values).square().mean())


@pytest.mark.parametrize("levels", [4, 8, 32])
@pytest.mark.parametrize("spread", [0.5, 1.0, 1.5])
def test_mse_is_as_good_as_a_search_on_the_values(spread: float, levels: int) -> None:
    values = (spread * torch.randn(20_000, generator=torch.Generator().manual_seed(3))).exp()
    statistics = observed("layer", [values.view(-1, 1)])
    found = level(statistics, "mse", levels=levels).item()
    largest = values.max().item()
    best = min(squared_error(values, largest * k / 500, levels) for k in range(1, 501))
    assert 0 < found < largest
    assert squared_error(values, found, levels) <= 1.02 * best
    assert squared_error(values, found, levels) < 0.9 * squared_error(values, largest, levels)


def test_mse_of_even_values_is_known() -> None:
    """The last step stands for half a step above it too: threshold = largest · L / (L + ½)."""
    values = torch.linspace(0, 1.5, 3001)[1:].view(-1, 1)
    for levels in (1, 4, 32):
        found = level(observed("layer", [values]), "mse", levels=levels).item()
        assert abs(found - 1.5 * levels / (levels + 0.5)) <= 2 / 128


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16), nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(16, 3)).eval()


IMAGES = torch.rand(50, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def thresholds_of(net: snm.SpikingNetwork) -> dict[str, Tensor]:
    return {path: neuron.threshold for path, neuron in net.layers.items()}


@quiet
@pytest.mark.parametrize(("name", "norm", "statistic"), every_two([*NETWORKS], NORMS, STATISTICS))
def test_converting_from_merged_statistics(name: str, norm: str, statistic: str) -> None:
    model, calibration, images = exact_network(name)
    parts = [
        snm.calibrate(model, part.split(2), norm=norm, statistic=statistic)
        for part in calibration.split([1, 3, 2])
    ]
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert merged.images == 6
    options = {"norm": norm, "statistic": statistic, "percentile": 80.0, "levels": 4}
    expected = snm.convert(model, calibration, **options)
    net = snm.convert(model, merged, **options)
    known = thresholds_of(expected)
    assert list(thresholds_of(net)) == list(known)
    for path, threshold in thresholds_of(net).items():
        assert torch.equal(threshold, known[path])
    assert torch.equal(net(images, timesteps=4), expected(images, timesteps=4))


@quiet
@pytest.mark.parametrize("asked", STATISTICS)
@pytest.mark.parametrize("made", ["percentile", "mse"])
def test_histograms_answer_every_statistic(made: str, asked: str) -> None:
    statistics = snm.calibrate(network(), IMAGES, statistic=made)
    found = thresholds_of(snm.convert(network(), statistics, statistic=asked))
    known = thresholds_of(snm.convert(network(), IMAGES, statistic=asked))
    assert all(torch.equal(found[path], known[path]) for path in known)


@quiet
@pytest.mark.parametrize("statistic", STATISTICS)
def test_thresholds_are_laid_out_as_the_activations(statistic: str) -> None:
    model = network().to(memory_format=torch.channels_last)
    images = IMAGES.contiguous(memory_format=torch.channels_last)
    made = snm.calibrate(model, images, statistic="percentile")
    for calibration in (images, made):
        threshold = snm.convert(model, calibration, statistic=statistic).layers["1"].threshold
        assert threshold.unsqueeze(0).is_contiguous(memory_format=torch.channels_last)
        assert not threshold.is_contiguous()


@quiet
def test_statistics_serve_either_readout() -> None:
    statistics = snm.calibrate(network(), IMAGES)
    for readout in ("mean", "count"):
        found = thresholds_of(snm.convert(network(), statistics, readout=readout))
        known = thresholds_of(snm.convert(network(), IMAGES, readout=readout))
        assert list(found) == list(known)
        assert all(torch.equal(found[path], known[path]) for path in known)


@quiet
def test_statistics_of_one_precision_serve_another() -> None:
    statistics = snm.calibrate(network(), IMAGES)
    net = snm.convert(network().bfloat16(), statistics)
    known = thresholds_of(snm.convert(network(), IMAGES))
    for path, threshold in thresholds_of(net).items():
        assert torch.equal(threshold.bfloat16(), known[path].bfloat16())


def test_progress_sees_every_batch() -> None:
    seen: list[int] = []

    def progress(batches):
        for batch in batches:
            seen.append(len(batch))
            yield batch

    assert snm.calibrate(network(), torch.rand(100, 2, 8, 8), progress=progress).images == 100
    assert seen == [64, 36]


def partly_dead() -> nn.Sequential:
    """Its first channel has dead neurons, its second is dead; of the linear layer half is."""
    conv = nn.Conv2d(1, 3, 1)
    linear = nn.Linear(12, 4, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, -1.0, 2.0]).view(3, 1, 1, 1))
        conv.bias.zero_()
        linear.weight.copy_(torch.tensor([1.0, -1.0, 0.5, -1.0]).view(4, 1).expand(4, 12))
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear, nn.ReLU(), nn.Linear(4, 2)).eval()


INF = math.inf
ONE_PIXEL_DARK = torch.tensor([[1.0, 3.0], [0.0, 2.0]]).view(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("norm", "dead", "conv", "linear"),
    [
        (
            "neuron",
            "silent",
            [[[1, 3], [INF, 2]], [[INF, INF], [INF, INF]], [[2, 6], [INF, 4]]],
            [18, INF, 9, INF],
        ),
        (
            "neuron",
            "channel",
            [[[1, 3], [3, 2]], [[INF, INF], [INF, INF]], [[2, 6], [6, 4]]],
            [18, INF, 9, INF],
        ),
        (
            "neuron",
            "layer",
            [[[1, 3], [6, 2]], [[6, 6], [6, 6]], [[2, 6], [6, 4]]],
            [18, 18, 9, 18],
        ),
        ("channel", "silent", [[[3]], [[INF]], [[6]]], [18, INF, 9, INF]),
        ("channel", "layer", [[[3]], [[6]], [[6]]], [18, 18, 9, 18]),
    ],
)
@pytest.mark.parametrize("statistic", ["max", "percentile"])
def test_dead_neurons(
    norm: str, dead: str, conv: list[object], linear: list[float], statistic: str
) -> None:
    what = (
        "their threshold is +inf and they stay silent"
        if dead == "silent"
        else f"they take the largest threshold of their {dead}, and stay silent where all of it "
        "is dead"
    )
    counts = "8 of 16 neurons" if norm == "neuron" else "3 of 7 channels"
    each = "1 6 of 12, 4 2 of 4" if norm == "neuron" else "1 1 of 3, 4 2 of 4"
    with pytest.warns(snm.DeadNeuronWarning) as caught:
        net = snm.convert(
            partly_dead(), ONE_PIXEL_DARK, norm=norm, dead=dead, statistic=statistic, percentile=100
        )
    [warning] = caught
    assert str(warning.message) == (
        f"convert: {counts} never fired in calibration; {what} ({each}); if that is too many, "
        "calibrate on more images"
    )
    assert warning.filename == __file__
    assert net.layers["1"].threshold.tolist() == conv
    assert net.layers["4"].threshold.tolist() == linear


@pytest.mark.parametrize("dead", ["silent", "channel", "layer"])
def test_dead_layers_stay_silent(dead: str) -> None:
    with pytest.warns(snm.DeadNeuronWarning):
        net = snm.convert(partly_dead(), -torch.zeros(1, 1, 2, 2), dead=dead)
    assert all(threshold.isinf().all() for threshold in thresholds_of(net).values())


@quiet
@pytest.mark.parametrize("max_spikes", [1, 4])
def test_caps_bound_given_thresholds(max_spikes: int) -> None:
    images = open_images(partly_dead(), ONE_PIXEL_DARK, None)
    prepared = prepare(partly_dead(), images.first, "direct", "mean")
    statistics = observe(prepared, images, "neuron", "max")
    found = choose_thresholds(
        prepared, statistics, Choice(dead="layer"), caps={"1": 2.5}, max_spikes=max_spikes
    )
    by_path = {prepared.paths[node]: layer for node, layer in found.items()}
    capped = torch.tensor([1.0, 3, 6, 2, 6, 6, 6, 6, 2, 6, 6, 4]).view(3, 2, 2)
    bound = 2.5 / max_spikes
    assert torch.equal(by_path["1"].threshold, capped.clamp(max=bound))
    assert by_path["1"][1:] == (6, 12)
    assert by_path["4"].threshold.tolist() == [18, 18, 9, 18]
    silent = choose_thresholds(
        prepared, statistics, Choice(), caps={"1": 2.5}, max_spikes=max_spikes
    )
    assert next(iter(silent.values())).threshold.isinf().sum() == 6


@quiet
@pytest.mark.parametrize("max_spikes", [1, 5, 7])
@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("norm", NORMS)
def test_relu6_in_bursts_sends_no_more_than_six(norm: str, statistic: str, max_spikes: int) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU6(), nn.Linear(8, 3)).eval()
    images = 40 * torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    rule = snm.SNMRule(v_init=0.0, negative_threshold=None, max_spikes=max_spikes)
    net = snm.convert(model, images, preset=rule, norm=norm, statistic=statistic)
    threshold = net.layers["1"].threshold
    largest = threshold[threshold.isfinite()].max()
    assert max_spikes * largest.double() <= 6
    assert max_spikes * torch.nextafter(largest, largest + 1).double() > 6


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"percentile": 0}, ValueError, "percentile must be above 0 and at most 100, got 0"),
        ({"percentile": 100.1}, ValueError, "percentile must be above 0 and at most 100, got"),
        ({"percentile": math.nan}, ValueError, "percentile must be above 0 and at most 100, got"),
        ({"percentile": "all"}, TypeError, "percentile must be a number, got 'all'"),
        ({"levels": 0}, ValueError, "levels must be at least 1, got 0"),
        ({"levels": 2.0}, TypeError, "levels must be an integer, got 2.0"),
        (
            {"norm": "channel", "dead": "channel"},
            ValueError,
            "dead='channel' says nothing with norm='channel', where each channel has one "
            "threshold; dead must be one of 'silent', 'layer'",
        ),
        ({"norm": "layer", "dead": "layer"}, ValueError, "dead must be one of 'silent'$"),
        ({"norm": "layer", "dead": "channel"}, ValueError, "dead must be one of 'silent'$"),
    ],
)
def test_bad_choice(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^convert: .*{message}"):
        snm.convert(network(), iter(()), **options)


@pytest.mark.parametrize("argument", ["norm", "statistic"])
def test_calibrate_with_an_unknown_name(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be one of .*, got 'best'"):
        snm.calibrate(network(), IMAGES, **{argument: "best"})


def test_calibrate_without_images() -> None:
    with pytest.raises(ValueError, match="calibration must hold at least one image, got none"):
        snm.calibrate(network(), [])


@pytest.mark.parametrize("statistic", ["percentile", "mse"])
def test_largest_activations_alone_answer_no_more(statistic: str) -> None:
    made = snm.calibrate(network(), IMAGES, statistic="max")
    message = (
        f"statistic='{statistic}' needs histograms, but the statistics are of statistic='max'; "
        "calibrate with statistic='percentile'"
    )
    with pytest.raises(ValueError, match=message):
        snm.convert(network(), made, statistic=statistic)


def test_statistics_of_another_norm() -> None:
    made = snm.calibrate(network(), IMAGES, norm="layer")
    with pytest.raises(ValueError, match="norm must be that of the statistics, 'layer', got 'neu"):
        snm.convert(network(), made)


def test_statistics_of_another_network() -> None:
    made = snm.calibrate(network(), IMAGES)
    other = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    with pytest.raises(ValueError, match=r"must be of the model's layers of neurons, {'1': \[4, 6"):
        snm.convert(other, made)


def test_statistics_that_cannot_be_merged() -> None:
    values = activations(4)
    one = observed("neuron", [values])
    with pytest.raises(ValueError, match="norms must be the same, got 'neuron' and 'layer'"):
        one.merge(observed("layer", [values]))
    with pytest.raises(ValueError, match="statistic='max' keeps no histograms and cannot be"):
        one.merge(observed("neuron", [values], "max"))
    with pytest.raises(ValueError, match=r"those of one network.*\[3, 4, 5\].*\[3, 4, 4\]"):
        one.merge(observed("neuron", [values[..., :4]]))
    with pytest.raises(TypeError, match="other must be a Statistics, got int"):
        one.merge(3)


def test_tensors_that_are_no_statistics() -> None:
    state = observed("neuron", [activations(4)]).state_dict()
    for missing in ("example", "counts.layer"):
        with pytest.raises(ValueError, match="the entries must be"):
            Statistics.from_state_dict({k: v for k, v in state.items() if k != missing})
    with pytest.raises(ValueError, match="norm must be there and one of 0 to 2, got None"):
        Statistics.from_state_dict({k: v for k, v in state.items() if k != "norm"})
    with pytest.raises(ValueError, match="statistic must be there and one of 0 to 2, got 7"):
        Statistics.from_state_dict({**state, "statistic": torch.tensor(7)})
    with pytest.raises(ValueError, match=r"counts.layer must be \[60, 2048\] for 60 thresholds"):
        Statistics.from_state_dict({**state, "counts.layer": state["counts.layer"][:, :16]})


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("norm", NORMS)
def test_activations_that_are_not_finite(norm: str, statistic: str, value: float) -> None:
    values = activations(4)
    values[1, 0, 2, 2] = value
    with pytest.raises(ValueError, match="the activations of layer must be finite in calibration"):
        observed(norm, [values], statistic)

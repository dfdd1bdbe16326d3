"""A network comes back from NIR as it was; what NIR cannot say, or means otherwise, is refused."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import nirtorch
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import snm
from snm.compat.nir import GraphError, from_nir, read, to_nir
from snm.compat.nir_nodes import RunningMaxPool, SignedNeuronMemory
from snm.demo.data import load_images, load_network
from support.interchange import everything, trains, with_biases
from support.networks import exact_network

T = 5
EXPRESSIBLE = ("plain", "residual", "mutated identity", "ends in ReLU", "sized")
MIXED = snm.SNMRule(
    v_init=0.25, negative_threshold=0.5, strict=True, max_spikes=3, count_min=-1, count_max=4
)
RULES = {**{name: name for name in snm.PRESETS}, "mixed": MIXED}

pytestmark = [
    pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning"),
    # Neurons that are bounded below T.
    pytest.mark.filterwarnings("ignore:SpikingNetwork. neurons send no more"),
]


def through_a_file(net: snm.SpikingNetwork, folder: Path) -> snm.SpikingNetwork:
    nir.write(folder / "net.nir", to_nir(net))
    return from_nir(read(folder / "net.nir"))


def assert_same(a: snm.SpikingNetwork, b: snm.SpikingNetwork, images: Tensor) -> None:
    """The same neurons, spikes and answers, whatever the chunks."""
    assert list(a.layers) == list(b.layers)
    for path, neuron in a.layers.items():
        other = b.layers[path]
        assert neuron.rule == other.rule
        assert torch.equal(neuron.threshold, other.threshold)
        assert (neuron.bias is None) == (other.bias is None)
    before, after = trains(a, images, T), trains(b, images, T)
    assert all(torch.equal(before[path], after[path]) for path in before)
    assert torch.equal(a.anytime(images, timesteps=T), b.anytime(images, timesteps=T))
    for chunk_steps in (None, 2):
        a.chunk_steps = b.chunk_steps = chunk_steps
        assert torch.equal(a(images, timesteps=T), b(images, timesteps=T))


@pytest.mark.parametrize("norm", ["neuron", "channel", "layer"])
@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_network_comes_back(name: str, norm: str, tmp_path: Path) -> None:
    model, calibration, images = exact_network(name)
    net = snm.convert(model, calibration, norm=norm, preset="snm-zero")
    assert_same(net, through_a_file(net, tmp_path), images)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_everything_comes_back(rule: str | snm.SNMRule, tmp_path: Path) -> None:
    net, images = everything(rule)
    assert any(neuron.threshold.isinf().any() for neuron in net.layers.values())
    signed = any((spikes < 0).any() for spikes in trains(net, images, T).values())
    assert signed == all(n.rule.negative_threshold is not None for n in net.layers.values())
    assert_same(net, through_a_file(net, tmp_path), images)


def test_inexact_sums_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.MaxPool1d(1), nn.Linear(16, 5)),
    )
    del model[9]
    net = with_biases(snm.convert(model.eval(), torch.rand(32, 1, 8, 8), preset="snm-half"))
    assert_same(net, through_a_file(net, tmp_path), torch.rand(3, 1, 8, 8))


def test_the_packaged_network_comes_back(tmp_path: Path) -> None:
    images = load_images()
    net = snm.convert(load_network(), images.calibration_images[:100], preset="snm-zero")
    same = through_a_file(net, tmp_path)
    assert_same(net, same, images.test_images[:4])
    shown = images.test_images[:32]
    assert torch.equal(net(shown, timesteps=8), same(shown, timesteps=8))


@pytest.mark.parametrize(
    "field", ["threshold", "shape", "v_init", "negative_threshold", "strict", "max_spikes"]
)
def test_a_file_says_which_neuron(field: str, tmp_path: Path) -> None:
    """What it lacks is not taken for that of another rule, such as plain integrate-and-fire."""
    path = tmp_path / "net.nir"
    net = snm.convert(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(), torch.rand(8, 4))
    nir.write(path, to_nir(net))
    with h5py.File(path, "a") as file:
        del file["node"]["nodes"]["1"][field]
    with pytest.raises(ValueError, match=f"nir: 1: SignedNeuronMemory: lacks {field}$"):
        read(path)
    nir.write(path, to_nir(net))
    with h5py.File(path, "a") as file:
        file["node"]["nodes"]["1"]["leak"] = 0.5
    with pytest.raises(ValueError, match="has leak, which is not known"):
        read(path)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"threshold": np.ones(7, np.float32)}, r"has a threshold of \[7\] for \[3\] neurons"),
        ({"bias": np.ones((2, 3), np.float32)}, r"has a bias of \[2, 3\] for \[3\] neurons"),
        ({"max_spikes": 1.5}, "'float' object cannot be interpreted as an integer"),
        ({"max_spikes": 128}, "max_spikes must be 1 to 127, got 128"),
    ],
    ids=["threshold", "bias", "fraction", "range"],
)
def test_neurons_that_there_are_not_are_refused(fields: dict[str, Any], reason: str) -> None:
    graph = to_nir(snm.convert(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(), torch.rand(8, 4)))
    for name, value in fields.items():
        setattr(graph.nodes["1"], name, value)
    with pytest.raises(GraphError, match=reason):
        from_nir(graph)


@pytest.mark.parametrize("readout", ["mean", "count"])
@pytest.mark.parametrize("encoder", ["direct", "poisson", "frames"])
def test_encoder_and_readout_come_back(encoder: str, readout: str, tmp_path: Path) -> None:
    model, calibration, images = exact_network("residual")
    net = snm.convert(model, calibration, encoder=encoder, readout=readout)
    same = through_a_file(net, tmp_path)
    given = torch.stack([images, images / 2, -images]) if encoder == "frames" else images
    answers = []
    for one in (net, same):
        torch.manual_seed(0)
        answers.append(one(given, timesteps=3))
    assert torch.equal(*answers)
    assert (same.encoder, same.readout) == (encoder, readout)
    said = to_nir(net).metadata["snm"]["simulation"]
    assert ("constant current" in said) == (encoder == "direct")
    assert ("mean over time of what reaches the output" in said) == (readout == "mean")


def test_normalised_form_comes_back(tmp_path: Path) -> None:
    model, calibration, images = exact_network("residual")
    net = snm.convert(model, calibration, norm="channel", form="normalised", preset="snm-zero")
    assert_same(net, through_a_file(net, tmp_path), images)


def test_settings_and_caps_come_back(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU6(), nn.Linear(8, 3)).eval()
    net = snm.convert(model, torch.rand(32, 4))
    net.tuned_for, net.preprocessing, net.fixed_size = 4, '{"mean": 0.5}', True
    same = through_a_file(net, tmp_path)
    assert (same.tuned_for, same.preprocessing, same.fixed_size) == (4, '{"mean": 0.5}', True)
    assert [fire.cap for fire in same.program.neurons] == [(6.0,)]
    assert same.program.neurons[0].per_neuron


def test_images_of_another_size() -> None:
    model, calibration, images = exact_network("residual")
    net = snm.convert(model, calibration, norm="channel")
    larger = images.repeat(1, 1, 2, 2)
    same = from_nir(to_nir(net, image_shape=(2, 16, 16)))
    assert same.image_shape == (2, 16, 16)
    assert torch.equal(net(larger, timesteps=T), same(larger, timesteps=T))


def test_a_graph_is_one_of_nir() -> None:
    net, _ = everything()
    graph = to_nir(net)
    kinds = {type(node) for node in graph.nodes.values()}
    own = {SignedNeuronMemory, RunningMaxPool}
    assert kinds - own == {
        *(nir.Input, nir.Conv2d, nir.Scale, nir.AvgPool2d, nir.Flatten, nir.Affine, nir.Output)
    }
    assert graph.check_types()
    assert not any(isinstance(node, nir.IF) for node in graph.nodes.values())
    found = {node.metadata.get("computed") for node in graph.nodes.values()}
    assert found == {None, "once", "every step", "once, on the mean"}
    assert "constant current" in graph.metadata["snm"]["simulation"]
    neurons = [node for node in graph.nodes.values() if isinstance(node, SignedNeuronMemory)]
    assert [node.metadata["path"] for node in neurons] == list(net.layers)


def layer_of(node: SignedNeuronMemory) -> nn.Module:
    return snm.nn.SNM(torch.as_tensor(node.threshold), node.rule, step_mode="s")


def affine_of(node: nir.Affine) -> nn.Module:
    layer = nn.Linear(*node.weight.shape[::-1])
    layer.load_state_dict({name: torch.tensor(getattr(node, name)) for name in ("weight", "bias")})
    return layer


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_another_tool_walks_the_graph(name: str) -> None:
    model, calibration, images = exact_network(name)
    net = snm.convert(model, calibration, preset="snm-zero")
    graph = to_nir(net)
    with pytest.raises(ValueError, match=r"Unknown node type .*SignedNeuronMemory"):
        nirtorch.nir_to_torch(graph, {})
    # Its own maps leave out the bias, and count the batch as a dimension to flatten.
    maps = {
        SignedNeuronMemory: layer_of,
        nir.Affine: affine_of,
        nir.Flatten: lambda node: nn.Flatten(node.start_dim + 1, node.end_dim + 1),
    }
    walked = nirtorch.nir_to_torch(graph, maps)
    with torch.no_grad():
        logits = sum(walked(images)[0] for _ in range(4)) / 4
    assert torch.equal(logits, net(images, timesteps=4))


@pytest.mark.parametrize("optimise", [[], ["-O"]], ids=["plainly", "without assertions"])
def test_who_does_not_know_the_neuron_stops_at_it(optimise: list[str], tmp_path: Path) -> None:
    model, calibration, _ = exact_network("plain")
    nir.write(tmp_path / "net.nir", to_nir(snm.convert(model, calibration)))
    script = f"import nir; nir.read({str(tmp_path / 'net.nir')!r}); print('read')"
    done = subprocess.run(
        [sys.executable, *optimise, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "read" not in done.stdout
    assert "str2NIRNode" in done.stderr


class SecondTermFirst(nn.Module):
    """A sum whose second term is a view of what nothing else reads, so that it stays second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.head(torch.relu(x + self.conv(x).contiguous()).flatten(1))


def test_the_bias_comes_behind_the_same_term() -> None:
    torch.manual_seed(0)
    net = snm.convert(SecondTermFirst().eval(), torch.rand(16, 1, 8, 8), preset="snm-zero")
    last = list(net.layers.values())[-1]
    last.bias = torch.rand(4, 1, 1) / 10
    same = from_nir(to_nir(net))
    for one in (net, same):
        first, second = one.program.neurons
        assert second.drive == first.name
    images = torch.rand(8, 1, 8, 8)
    states = []
    for one in (net, same):
        one.step(images)
        states.append(one._live.states[one.program.neurons[-1].name].v)
    assert torch.equal(*states)


def test_refusal_names_everything() -> None:
    model, calibration, _ = exact_network("shuffled")
    net = snm.convert(model, calibration)
    with pytest.raises(GraphError) as refused:
        to_nir(net)
    found = {(o.path, o.operation) for o in refused.value.offences}
    assert {("norm", "BatchNorm2d"), ("conv3", "Conv2d"), ("cat", "cat")} <= found
    assert str(refused.value).startswith(
        "nir: 10 operations cannot be expressed:\n  chunk: chunk: "
    )
    assert "conv3: Conv2d: pads with 'reflect'" in str(refused.value)


@pytest.mark.parametrize("name", ["branches", "read twice", "conv3d", "shared convolution"])
def test_what_nir_lacks_is_refused(name: str) -> None:
    model, calibration, _ = exact_network(name)
    with pytest.raises(GraphError, match="cannot be expressed"):
        to_nir(snm.convert(model, calibration))


class PoolsSideBySide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(1, 2, 1), nn.MaxPool2d(2), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.pool(torch.cat([torch.relu(x), torch.relu(-x)], 1))
        return self.head(torch.relu(x).flatten(1))


def test_a_pooling_of_several_layers_is_refused() -> None:
    net = snm.convert(PoolsSideBySide().eval(), torch.rand(4, 1, 4, 4))
    with pytest.raises(GraphError, match="pool: RunningMax: pools layers side by side"):
        to_nir(net)


def test_poolings_that_nir_means_otherwise_are_refused() -> None:
    for pool, reason in (
        (nn.AvgPool2d(2, ceil_mode=True), "ceil_mode"),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), "divides by another number"),
        (nn.AvgPool2d(2, divisor_override=3), "divides by another number"),
        (nn.AdaptiveAvgPool2d(2), "windows of two sizes"),
    ):
        model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), pool, nn.Flatten(), nn.LazyLinear(3))
        images = torch.rand(4, 1, 5, 5)
        model(images)
        with pytest.raises(GraphError, match=reason):
            to_nir(snm.convert(model.eval(), images))


def test_networks_of_integers_are_refused() -> None:
    images = torch.rand(8, 4)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    net = snm.quantize(snm.convert(model, images, norm="channel"), images)
    with pytest.raises(ValueError, match=r"^to_nir: takes a floating .*; write it before"):
        to_nir(net)


def test_other_dtypes_and_types_are_refused() -> None:
    net = snm.convert(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(), torch.rand(8, 4))
    with pytest.raises(TypeError, match=r"to_nir: net must be torch.float32, got torch.bfloat16"):
        to_nir(net.bfloat16())
    with pytest.raises(TypeError, match="net must be a SpikingNetwork, got int"):
        to_nir(3)
    with pytest.raises(TypeError, match=r"graph must be a nir\.NIRGraph, got int"):
        from_nir(3)
    with pytest.raises(ValueError, match="if_reset must be None or 'subtract', got 'zero'"):
        from_nir(nir.NIRGraph({}, [], type_check=False), if_reset="zero")


def test_files_that_hold_no_graph_are_refused(tmp_path: Path) -> None:
    nir.write(tmp_path / "node.nir", nir.Scale(np.ones(2)))
    with pytest.raises(ValueError, match="holds no graph"):
        read(tmp_path / "node.nir")
    graph = nir.NIRGraph.from_list(nir.Input(np.array([2])), nir.Scale(np.ones(2)))
    graph.nodes["scale"].to_dict = lambda: {"type": "Spline", "knots": np.ones(2)}
    nir.write(tmp_path / "spline.nir", graph)
    with pytest.raises(ValueError, match=r"scale: Spline: is no node of NIR 1\."):
        read(tmp_path / "spline.nir")
    with pytest.raises(OSError, match="nothing"):
        read(tmp_path / "nothing.nir")


def foreign(threshold: float = 0.75, r: float = 1.0, v_reset: float = 0.0) -> nir.NIRGraph:
    """A network that another tool wrote: two layers of IF neurons, sum pooling between them."""
    g = np.random.default_rng(0)
    convolution = g.integers(-2, 3, (3, 1, 3, 3)) / 4
    shape = (3, 4, 4)
    nodes = {
        "input": nir.Input(np.array([1, 4, 4])),
        "conv": nir.Conv2d((4, 4), convolution, 1, 1, 1, 1, np.array([0.25, 0.0, 0.5])),
        "if.1": nir.IF(np.full(shape, r), np.full(shape, threshold), np.full(shape, v_reset)),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([3, 2, 2])}, 0, -1),
        "linear": nir.Linear(g.integers(-2, 3, (6, 12)) / 4),
        "if.2": nir.IF(np.ones(6), np.ones(6)),
        "head": nir.Affine(g.integers(-2, 3, (4, 6)) / 4, np.zeros(4)),
        "output": nir.Output(np.array([4])),
    }
    names = list(nodes)
    return nir.NIRGraph(nodes, list(pairwise(names)))


@pytest.mark.parametrize(("threshold", "r"), [(1.0, 1.0), (0.7, 1.0), (0.75, 0.5)])
def test_integrate_and_fire_from_elsewhere(threshold: float, r: float, tmp_path: Path) -> None:
    graph = foreign(threshold, r)
    nir.write(tmp_path / "foreign.nir", graph)
    net = from_nir(read(tmp_path / "foreign.nir"), if_reset="subtract")
    images = torch.randint(0, 5, (3, 1, 4, 4), generator=torch.Generator().manual_seed(0)) / 4
    nodes = graph.nodes
    weights = [torch.tensor(nodes[name].weight).float() for name in ("conv", "linear", "head")]
    first = nn.functional.conv2d(images, weights[0], torch.tensor([0.25, 0.0, 0.5]), padding=1)
    v1, v2, total, sent = torch.zeros_like(first), torch.zeros(3, 6), torch.zeros(3, 6), []
    theta = torch.tensor(threshold)
    for _ in range(8):
        v1 = v1 + r * first
        s1 = (v1 >= theta).float()
        v1 = v1 - s1 * theta
        v2 = v2 + 4 * nn.functional.avg_pool2d(s1, 2).flatten(1) @ weights[1].T
        s2 = (v2 >= 1).float()
        v2 = v2 - s2
        total = total + s2
        sent.append(s1)
    assert torch.equal(trains(net, images, 8)["if.1"], torch.stack(sent).to(torch.int8))
    assert torch.equal(net(images, timesteps=8), total / 8 @ weights[2].T)
    assert 0 < total.sum() < total.numel() * 8


def test_neurons_with_another_meaning_are_refused() -> None:
    with pytest.raises(GraphError, match="2 operations") as refused:
        from_nir(foreign())
    assert [o.path for o in refused.value.offences] == ["if.1", "if.2"]
    assert "is then at v_reset" in str(refused.value)
    with pytest.raises(GraphError, match=r"if.1: IF: has a v_reset other than 0"):
        from_nir(foreign(v_reset=-0.5), if_reset="subtract")
    with pytest.raises(GraphError, match=r"if.1: IF: has a threshold that is not > 0"):
        from_nir(foreign(threshold=0.0), if_reset="subtract")
    graph = foreign()
    graph.nodes["if.2"] = nir.LIF(*(np.ones(6) for _ in range(4)))
    with pytest.raises(GraphError, match=r"if.2: LIF: has no counterpart"):
        from_nir(graph, if_reset="subtract")


def test_graphs_of_another_kind_are_refused() -> None:
    graph = foreign()
    graph.edges.append(("if.2", "linear"))
    with pytest.raises(GraphError, match="is part of a cycle"):
        from_nir(graph, if_reset="subtract")
    graph = foreign()
    graph.nodes["second"] = nir.Output(np.array([4]))
    graph.edges.append(("head", "second"))
    with pytest.raises(GraphError, match="must be there once, got 2"):
        from_nir(graph, if_reset="subtract")
    graph = foreign()
    graph.edges.append(("nowhere", "head"))
    with pytest.raises(GraphError, match="nowhere is connected to it, but no node"):
        from_nir(graph, if_reset="subtract")
    graph = foreign()
    graph.edges.append(("pool", "flat"))
    with pytest.raises(GraphError, match="flat: edge: pool is connected to it twice"):
        from_nir(graph, if_reset="subtract")
    graph = foreign()
    graph.nodes["behind"] = nir.Scale(np.ones(4))
    graph.edges.append(("output", "behind"))
    with pytest.raises(GraphError, match="behind: edge: output is connected to it, but the output"):
        from_nir(graph, if_reset="subtract")
    graph = nir.NIRGraph.from_list(nir.Input(np.array([2])), nir.Scale(np.ones(2)))
    with pytest.raises(GraphError, match="NIRGraph: has no neurons"):
        from_nir(graph)
    graph = foreign()
    graph.nodes["if.2"] = nir.IF(np.ones(1), np.ones(1))
    with pytest.raises(GraphError, match=r"is for \[1\] neurons, but is driven by \[6\]"):
        from_nir(graph, if_reset="subtract")
    graph = foreign()
    graph.nodes["output"] = nir.Output(np.array([5]))
    with pytest.raises(GraphError, match=r"is declared as \[5\], but gets \[4\]"):
        from_nir(graph, if_reset="subtract")
    graph = to_nir(snm.convert(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(), torch.rand(8, 4)))
    graph.metadata["snm"]["encoder"] = "phase"
    with pytest.raises(GraphError, match="encoder='phase'"):
        from_nir(graph)


@pytest.mark.parametrize(
    ("convolution", "neurons"),
    [("conv", "conv.weight"), ("a.b", "a"), ("training", "forward"), ("", "a..b")],
)
def test_nodes_may_have_any_name(convolution: str, neurons: str) -> None:
    graph, expected = foreign(), from_nir(foreign(), if_reset="subtract")
    names = {"conv": convolution, "if.1": neurons}
    nodes = {names.get(name, name): node for name, node in graph.nodes.items()}
    edges = [tuple(names.get(name, name) for name in edge) for edge in graph.edges]
    net = from_nir(nir.NIRGraph(nodes, edges), if_reset="subtract")
    images = torch.rand(3, 1, 4, 4)
    assert torch.equal(net(images, timesteps=4), expected(images, timesteps=4))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for call in (to_nir, from_nir, read):
        with pytest.raises(
            ModuleNotFoundError, match=r"needs nir: pip install 'snm-kernels\[inter"
        ):
            call(None)

"""SNMNode beside SpikingJelly's own neurons, containers, tools and converter."""

import copy
from collections.abc import Callable

import pytest
import torch
from spikingjelly.activation_based import ann2snn, base, functional, layer, surrogate
from spikingjelly.activation_based.neuron import HalfThresholdIFNode, IFNode
from torch import Tensor, nn

import snm
import snm_kernels
from snm.compat.spikingjelly import SNMNode, neuron_factory
from snm_kernels import PRESETS, SNMRule
from support.dyadic import counts_of, dyadic, power_of_two
from support.networks import exact_images

T = 32
Node = Callable[..., nn.Module]


def drive(seed: int, *shape: int, over: float = 1.0) -> Tensor:
    """What a step of neurons is driven by, mostly upwards."""
    generator = torch.Generator().manual_seed(seed)
    return over * (0.25 + torch.randn(T, *shape, generator=generator))


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("threshold", [1.0, 0.7, 3e-3])
@pytest.mark.parametrize(
    ("preset", "theirs"),
    [("if", lambda *a, **k: IFNode(*a, v_reset=None, **k)), ("if-half", HalfThresholdIFNode)],
    ids=["if", "if-half"],
)
def test_it_is_their_neuron(preset: str, theirs: Node, threshold: float, step_mode: str) -> None:
    x = drive(1, 3, 50, 7, over=threshold)
    nodes = [
        theirs(threshold, step_mode=step_mode, store_v_seq=True),
        SNMNode(threshold, step_mode=step_mode, store_v_seq=True, preset=preset),
    ]
    sent = []
    for node in nodes:
        run = node if step_mode == "m" else lambda x, n=node: functional.multi_step_forward(x, n)
        # The second half goes on from the first.
        sent.append(torch.cat([run(x[:10]), run(x[10:])]))
    assert torch.equal(sent[0], sent[1])
    assert 0.1 < sent[0].mean() < 0.9
    assert torch.equal(nodes[0].v, nodes[1].v)
    assert torch.equal(nodes[0].v_seq, nodes[1].v_seq)


THRESHOLDS = torch.tensor([0.5, 0.9, torch.inf]).view(3, 1, 1)


@pytest.mark.parametrize("threshold", [0.7, THRESHOLDS], ids=["number", "channels"])
@pytest.mark.parametrize("send", ["spike", "amplitude"])
@pytest.mark.parametrize("rule", [*PRESETS, SNMRule(v_init=0.3, count_max=3)], ids=str)
def test_it_sends_what_the_op_sends(
    rule: str | SNMRule, send: str, threshold: Tensor | float
) -> None:
    x = drive(2, 2, 3, 5, 5)
    chosen = rule if isinstance(rule, SNMRule) else snm_kernels.preset(rule)
    expected, state = snm_kernels.snm(x, threshold, rule=chosen, emit=send)
    node = SNMNode(threshold, preset=rule, send=send)
    assert torch.equal(functional.multi_step_forward(x, node), expected.float())
    functional.reset_net(node)
    functional.set_step_mode(node, "m")
    sent = torch.cat([node(x[:9]), node(x[9:])])
    assert torch.equal(sent, expected.float())
    assert sent.dtype == x.dtype
    assert torch.equal(node.v, state.v)
    assert torch.equal(node.m, state.m)


def test_a_multi_step_call_is_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = []

    def counted(x: Tensor, *arguments: object, **options: object) -> object:
        launches.append(x.shape)
        return run(x, *arguments, **options)

    run = snm_kernels.snm
    monkeypatch.setattr(snm_kernels, "snm", counted)
    SNMNode(step_mode="m")(drive(3, 2, 5))
    assert launches == [(T, 2, 5)]


def network(node: Node) -> nn.Sequential:
    """Their layers and containers around three nodes."""
    torch.manual_seed(0)
    return nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1),
        node(),
        layer.SeqToANNContainer(nn.AvgPool2d(2), nn.Flatten()),
        layer.Linear(4 * 3 * 3, 16),
        layer.MultiStepContainer(nn.Sequential(node(), nn.Linear(16, 8))),
        layer.Linear(8, 8),
        node(),
    )


def watch(net: nn.Module) -> list[Tensor]:
    """Fills with what the nodes of a network send, call by call."""
    sent: list[Tensor] = []
    for node in net.modules():
        if isinstance(node, base.MemoryModule):
            node.register_forward_hook(lambda _node, _x, spikes: sent.append(spikes))
    return sent


@torch.no_grad()
def test_their_containers_and_tools() -> None:
    x = 4 * drive(4, 2, 2, 6, 6)
    found, spikes = [], []
    for node in (lambda: IFNode(v_reset=None), lambda: SNMNode(preset="if")):
        net = network(node)
        functional.set_step_mode(net, "m")
        assert [n.step_mode for n in net.modules() if isinstance(n, base.MemoryModule)] == list(
            "msm"
        )
        spikes.append(watch(net))
        first, second = net(x), net(x)
        functional.reset_net(net)
        assert torch.equal(net(x), first)
        assert not torch.equal(first, second)
        found += [first, second]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])
    assert first.any()
    for theirs, ours in zip(*spikes, strict=True):
        assert torch.equal(theirs, ours)


def test_the_functional_form_leaves_the_node_alone() -> None:
    x = drive(5, 4)
    node = SNMNode(0.8, preset="snm-half", step_mode="m")
    run = base.to_functional_forward(node)
    (sent,), states = run((x,), tuple(base.extract_memories(node)))
    assert node.v is None
    assert node.m == 0
    assert torch.equal(sent, node(x))
    assert torch.equal(states[0], node.v)
    assert torch.equal(states[1], node.m)
    (more,), _ = run((x,), states)
    assert torch.equal(copy.deepcopy(node)(x), more)
    assert torch.equal(node(x), more)


def test_another_size_starts_afresh_as_theirs_does() -> None:
    x, fewer = drive(6, 5, 4), drive(7, 3, 4)
    theirs, ours = IFNode(v_reset=None, step_mode="m"), SNMNode(preset="if", step_mode="m")
    for steps in (x, fewer, x):
        assert torch.equal(theirs(steps), ours(steps))
        assert torch.equal(theirs.v, ours.v)
    assert torch.equal(ours(fewer), SNMNode(preset="if", step_mode="m")(fewer))


def test_weights_of_an_ifnode_network_load() -> None:
    weights = network(IFNode).state_dict()
    net = network(SNMNode)
    net[0].weight.data.zero_()
    net.load_state_dict(weights)
    assert torch.equal(net[0].weight, weights["0.weight"])


@torch.no_grad()
def test_thresholds_load_and_the_start_follows() -> None:
    saved = SNMNode(THRESHOLDS, preset="if-half").state_dict()
    assert list(saved) == ["v_threshold"]
    node = SNMNode(torch.ones(3, 1, 1), preset="if-half", step_mode="m")
    x = drive(8, 2, 3, 4, 4)
    before = node(x)
    node.load_state_dict(saved)
    functional.reset_net(node)
    expected = snm_kernels.snm(x, THRESHOLDS, rule=snm_kernels.preset("if-half"))
    assert torch.equal(node(x), (expected.spikes != 0).float())
    assert not torch.equal(node(x), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("threshold", [0.7, torch.full((4,), 0.7)], ids=["number", "tensor"])
def test_half_precision(threshold: Tensor | float, dtype: torch.dtype) -> None:
    x = drive(9, 2, 4).to(dtype)
    node = SNMNode(threshold, step_mode="m").to(dtype)
    sent = node(x)
    assert sent.dtype == dtype
    kept = node.v_threshold
    expected = snm_kernels.snm(x, kept, emit="spike")
    assert torch.equal(sent, expected.spikes.to(dtype))
    assert node.v.dtype == torch.float32
    amplitude = SNMNode(threshold, step_mode="m", send="amplitude").to(dtype)
    carried = amplitude(x).double()
    assert carried.unique().tolist() == [-torch.tensor(0.7, dtype=dtype), 0, -carried.unique()[0]]
    # What came in is what was sent and what is left.
    left = x.double().sum(0) - carried.sum(0)
    torch.testing.assert_close(amplitude.v.double(), left, atol=1e-5, rtol=0)


def test_a_gradient_is_refused() -> None:
    x = drive(10, 3).requires_grad_()
    for node in (SNMNode(step_mode="m"), SNMNode()):
        with pytest.raises(RuntimeError, match=r"x requires grad.*torch\.no_grad"):
            node(x)
    with torch.no_grad():
        assert node(x).any()


def test_it_takes_what_code_hands_an_ifnode() -> None:
    x = drive(11, 3, 5)
    arguments = (0.8, None, surrogate.ATan(), True, "m", True)
    theirs, ours = IFNode(*arguments), SNMNode(*arguments, preset="if")
    assert torch.equal(theirs(x), ours(x))
    assert torch.equal(theirs.v_seq, ours.v_seq)
    assert ours.surrogate_function is arguments[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"v_threshold": 0.0}, "threshold must be > 0"),
        ({"v_threshold": torch.tensor([1.0, -1.0])}, "threshold must be > 0"),
        ({"v_reset": 0.0}, "v_reset must be None"),
        ({"preset": "lif"}, "unknown preset 'lif'"),
        ({"send": "none"}, "send must be 'spike' or 'amplitude'"),
        ({"step_mode": "x"}, "step_mode can only be"),
    ],
)
def test_what_it_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SNMNode(**options)


@torch.no_grad()
def exact_network() -> nn.Sequential:
    """A convolutional network whose float32 sums are all exact."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10)),
    ).eval()
    for module in net:
        if isinstance(module, nn.Conv2d | nn.Linear):
            dyadic(module.weight, generator, nonzero=12)
            module.bias.copy_(torch.randint(-1, 3, module.bias.shape, generator=generator) / 8)
    return net


def spikes_of(net: nn.Module, images: Tensor, timesteps: int) -> tuple[list[Tensor], Tensor]:
    """What each node of a converted network sends at each step, and the mean of its outputs."""
    functional.set_step_mode(net, "m")
    sent = watch(net)
    with torch.no_grad():
        logits = net(images.expand(timesteps, *images.shape).contiguous()).mean(0)
    return sent, logits


@pytest.mark.parametrize("channel_wise", [False, True], ids=["layer", "channel"])
@pytest.mark.parametrize(
    ("preset", "theirs"),
    [("if", None), ("if-half", lambda _scale: HalfThresholdIFNode())],
    ids=["if", "if-half"],
)
def test_a_network_of_their_converter_sends_the_same(
    preset: str, theirs: Callable[[float], nn.Module] | None, channel_wise: bool
) -> None:
    images = exact_images(4, (3, 16, 16), seed=2)
    calibration = [exact_images(8, (3, 16, 16), seed=1)]
    found = []
    for factory in (theirs, neuron_factory(preset)):
        recipe = ann2snn.RateCodingRecipe(
            calibration, channel_wise=channel_wise, neuron_factory=factory
        )
        net = ann2snn.Converter(recipe).convert(exact_network())
        found.append(spikes_of(net, images, T))
        kinds = {type(node) for node in net.modules() if isinstance(node, base.MemoryModule)}
    assert kinds == {SNMNode}
    (expected, expected_logits), (sent, logits) = found
    assert len(sent) == 3
    for one, other in zip(expected, sent, strict=True):
        assert torch.equal(one, other)
        assert one.mean() > 0.02
    assert torch.equal(logits, expected_logits)


@pytest.mark.parametrize("preset", ["snm", "snm-zero"])
def test_signed_neurons_in_a_network_of_their_converter(preset: str) -> None:
    """They send what the network that snm.convert makes sends."""
    images, calibration = exact_images(4, (3, 16, 16), seed=2), exact_images(8, (3, 16, 16), seed=1)
    net = snm.convert(exact_network(), calibration, preset=preset, norm="layer")
    recipe = ann2snn.RateCodingRecipe([calibration], neuron_factory=neuron_factory(preset))
    theirs = ann2snn.Converter(recipe).convert(exact_network())
    for seed, neuron in enumerate(net.layers.values()):
        neuron.threshold = power_of_two(neuron.threshold, seed)
        group = theirs.get_submodule(f"spiking_{seed}")
        group.scaler0.scale.copy_(1 / neuron.threshold)
        group.scaler1.scale.copy_(neuron.threshold)
    sent, logits = spikes_of(theirs, images, T)
    counts = counts_of(net, images, T)
    assert len(sent) == len(counts) == 3
    for spikes, count in zip(sent, counts.values(), strict=True):
        assert torch.equal(spikes.sum(0).int(), count)
    assert min(spikes.min() for spikes in sent) == -1
    assert torch.equal(net(images, timesteps=T), logits)

"""Images that stop early: what they get, when they stop, what the batch shrinks to."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

import snm
from snm.demo import load_images, load_network
from snm.network.until import lead_of
from snm.tuning.stopping import _smallest_factor, at_least
from support.networks import NETWORKS, exact_images, exact_network

T = 16
IMAGES = 13

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


def converted(name: str, **options: object) -> tuple[nn.Module, snm.SpikingNetwork, Tensor]:
    model, calibration, _ = exact_network(name)
    images = exact_images(IMAGES, NETWORKS[name][1], seed=3)
    return model, snm.convert(model, calibration, **options), images


def scattered(answers: Tensor) -> snm.Stop:
    """Leads that some images have after 1, 2, 4 and 8 steps, whose means are exact in float32."""
    leads = [math.inf] * T
    for step in (1, 2, 4, 8):
        middle = lead_of(answers[step - 1]).quantile(0.6).item()
        leads[step - 1] = math.nextafter(middle, math.inf)
    return snm.Stop(tuple(leads))


def expected_steps(answers: Tensor, stop: snm.Stop) -> Tensor:
    """When each image stops, one image and step after another."""
    steps = []
    for image in range(answers.shape[1]):
        for step in range(1, T + 1):
            best, second = sorted(answers[step - 1, image].tolist())[::-1][:2]
            if step == T or best - second >= stop.leads[step - 1]:
                steps.append(step)
                break
    return torch.tensor(steps)


@pytest.mark.parametrize("preset", ["snm", "snm-zero"])
@pytest.mark.parametrize("name", NETWORKS)
def test_answers_are_those_of_anytime(name: str, preset: str) -> None:
    _, net, images = converted(name, preset=preset)
    by_step = net.anytime(images, timesteps=T)
    stop = scattered(by_step)
    predictions, logits, steps = net.until(images, stop)
    assert torch.equal(steps, expected_steps(by_step, stop))
    assert torch.equal(logits, by_step[steps - 1, torch.arange(IMAGES)])
    assert torch.equal(predictions, logits.argmax(1))
    # So that the batch shrinks in between.
    assert len(steps.unique()) > 1


def batches_of(net: snm.SpikingNetwork, images: Tensor, stop: snm.Stop) -> list[int]:
    """How many images the last layer of neurons sees at each step."""
    seen: list[int] = []
    last = list(net.layers.values())[-1]
    hook = last.register_forward_pre_hook(
        lambda _, inputs: seen.extend([inputs[0].shape[1]] * len(inputs[0]))
    )
    net.until(images, stop)
    hook.remove()
    return seen


def test_the_batch_shrinks_to_what_still_runs() -> None:
    _, net, images = converted("plain", preset="snm-half")
    by_step = net.anytime(images, timesteps=T)
    stop = scattered(by_step)
    steps = net.until(images, stop).steps
    seen = batches_of(net, images, stop)
    assert len(seen) == int(steps.max())
    size = IMAGES
    for step, batch in enumerate(seen, start=1):
        assert batch == size
        left = int((steps > step).count_nonzero())
        size = left if left <= 0.75 * size else size
    assert seen[-1] < IMAGES / 2


def test_all_images_stop_at_once() -> None:
    _, net, images = converted("residual")
    by_step = net.anytime(images, timesteps=T)
    for step in (1, 4):
        stop = snm.Stop((math.inf,) * (step - 1) + (0.0,) * (T - step + 1))
        answers = net.until(images, stop)
        assert answers.steps.tolist() == [step] * IMAGES
        assert torch.equal(answers.logits, by_step[step - 1])
        assert batches_of(net, images, stop) == [IMAGES] * step


def test_no_image_stops_before_the_last_step() -> None:
    _, net, images = converted("branches")
    answers = net.until(images, snm.Stop((math.inf,) * T))
    assert answers.steps.tolist() == [T] * IMAGES
    assert torch.equal(answers.logits, net(images, timesteps=T))


def test_a_probability_stops_images() -> None:
    _, net, images = converted("plain", preset="snm-zero")
    by_step = net.anytime(images, timesteps=T)
    certain = by_step.double().softmax(-1).amax(-1)
    probability = certain[4].median().item()
    _, logits, steps = net.until(images, probability, min_steps=3, max_steps=T)
    stops = certain >= probability
    stops[:2], stops[-1] = False, True
    assert torch.equal(steps, stops.int().argmax(0) + 1)
    assert len(steps.unique()) > 1
    assert torch.equal(logits, by_step[steps - 1, torch.arange(IMAGES)])


def test_steps_narrow_a_stop_down() -> None:
    _, net, images = converted("plain", preset="snm-zero")
    stop = scattered(net.anytime(images, timesteps=T))
    steps = net.until(images, stop).steps
    assert steps.min() < 3
    assert steps.max() > 6
    narrow = net.until(images, stop, min_steps=3, max_steps=6).steps
    assert (narrow.min(), narrow.max()) == (4, 6)
    assert torch.equal(narrow[steps > 2], steps[steps > 2].clamp(max=6))


def test_no_images() -> None:
    _, net, images = converted("plain")
    predictions, logits, steps = net.until(images[:0], snm.Stop((1.0, 0.0)))
    assert predictions.shape == steps.shape == (0,)
    assert logits.shape == (0, 5)


def test_memory_format_is_kept() -> None:
    _, net, images = converted("residual", preset="snm-zero")
    stop = scattered(net.anytime(images, timesteps=T))
    formats: list[bool] = []

    def note(_: nn.Module, inputs: tuple[Tensor, snm.nn.SNMNeuron]) -> None:
        drive, state = inputs
        if state is not None:
            formats.append(state.v.stride() == torch.empty_like(drive[0]).stride())

    layer = next(iter(net.layers.values()))
    hook = layer.register_forward_pre_hook(note)
    found = net.until(images.to(memory_format=torch.channels_last), stop)
    hook.remove()
    assert formats
    assert all(formats)
    expected = net.until(images, stop)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.steps, expected.steps)


@pytest.mark.parametrize("name", ["plain", "ends in ReLU"])
def test_counts_of_output_neurons(name: str) -> None:
    _, net, images = converted(name, readout="count", preset="snm-zero")
    by_step = net.anytime(images, timesteps=T)
    stop = snm.Stop((2.0,) * T)
    answers = net.until(images, stop)
    assert answers.logits.dtype == torch.int32
    assert torch.equal(answers.steps, expected_steps(by_step, stop))
    assert torch.equal(answers.logits, by_step[answers.steps - 1, torch.arange(IMAGES)])


def test_half_precision() -> None:
    _, net, images = converted("plain", preset="snm-zero")
    net, images = net.to(torch.bfloat16), images.bfloat16()
    by_step = net.anytime(images, timesteps=T)
    answers = net.until(images, scattered(by_step))
    assert answers.logits.dtype == torch.bfloat16
    assert torch.equal(answers.logits, by_step[answers.steps - 1, torch.arange(IMAGES)])


def test_images_and_network_stay_as_they_were() -> None:
    _, net, images = converted("plain", preset="snm-zero")
    kept, live = images.clone(), net.step(images)
    net.until(images, scattered(net.anytime(images, timesteps=T)))
    assert torch.equal(images, kept)
    assert torch.equal(net.step(images), net(images, timesteps=2))
    assert not torch.equal(live, net(images, timesteps=2))


def test_what_until_refuses() -> None:
    _, net, images = converted("plain")
    stop = snm.Stop((0.0,))
    with pytest.raises(TypeError, match=r"confidence must be a Stop or a probability, got str"):
        net.until(images, "0.995")
    for wrong in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="confidence must be above 0 and below 1"):
            net.until(images, wrong, max_steps=T)
    with pytest.raises(TypeError, match="max_steps must be an integer, got None"):
        net.until(images, 0.9)
    with pytest.raises(ValueError, match="min_steps must be at most max_steps=3, got 4"):
        net.until(images, 0.9, min_steps=4, max_steps=3)
    with pytest.raises(ValueError, match="max_steps must be at most the 1 of the Stop, got 2"):
        net.until(images, stop, max_steps=2)
    _, counting, _ = converted("plain", readout="count")
    with pytest.raises(ValueError, match=r"readout='mean', or a Stop, got 0\.9 with"):
        counting.until(images, 0.9, max_steps=T)
    with pytest.raises(ValueError, match="images must have 4 dimensions"):
        net.until(images[0], stop)
    for encoder in ("frames", "poisson"):
        _, other, _ = converted("plain", encoder=encoder)
        with pytest.raises(ValueError, match="takes a network with encoder='direct'"):
            other.until(images, stop)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)).eval()
    one = snm.convert(model, torch.rand(8, 4))
    with pytest.raises(ValueError, match=r"at least two classes for an image .* got \[2, 1\]"):
        one.until(torch.rand(2, 4), stop)


@pytest.mark.parametrize(
    ("leads", "message"),
    [
        ((), "Stop: leads must hold at least one step, got none"),
        ((1.0, -0.5), "Stop: leads must be >= 0, got -0.5"),
        ((math.nan,), "Stop: leads must be >= 0, got nan"),
    ],
)
def test_leads_that_make_no_sense_are_refused(leads: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        snm.Stop(leads)


def wrong_with(factor: float, ratios: Tensor, right: Tensor) -> int:
    """How many images end up wrong, counted image by image."""
    last, wrong = right.shape[0] - 1, 0
    for image in range(right.shape[1]):
        stops = [step for step in range(last) if ratios[step, image] >= factor]
        wrong += not right[min(stops, default=last), image]
    return wrong


@pytest.mark.parametrize("seed", range(20))
def test_the_smallest_factor_is_the_smallest(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few values, so that many are equal.
    ratios = torch.randint(1, 9, (5, 12), generator=generator).double()
    right = torch.rand(6, 12, generator=generator) < torch.linspace(0.3, 0.95, 6).unsqueeze(1)
    for allowed in range(wrong_with(math.inf, ratios, right), 13):
        found = _smallest_factor(ratios, right, allowed)
        enough = [
            wrong_with(factor, ratios, right) <= allowed for factor in (*range(1, 9), math.inf)
        ]
        fewest = max((n + 1 for n, good in enumerate(enough) if not good), default=0)
        # The κ between the largest that does not do and the next, which does.
        assert (
            fewest < found <= fewest + 1 or found == fewest == 0 or (fewest, found) == (8, math.inf)
        )


def sure_network() -> tuple[nn.Module, snm.SpikingNetwork]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU())
    model = nn.Sequential(*model, nn.Linear(24, 4)).eval()
    return model, snm.convert(model, torch.rand(200, 6), preset="snm-zero")


@pytest.mark.parametrize("given", ["model", "none"])
@pytest.mark.parametrize("agreement", [0.9, 0.98])
def test_calibration_keeps_the_agreement(agreement: float, given: str) -> None:
    model, net = sure_network()
    images = torch.rand(300, 6)
    reference = model if given == "model" else None
    stop = snm.calibrate_stop(net, reference, images, agreement=agreement, max_steps=32)
    answers = net.until(images, stop)
    wanted = model(images) if given == "model" else net(images, timesteps=32)
    agreeing = (answers.predictions == wanted.argmax(1)).double().mean().item()
    assert agreeing >= agreement
    assert stop.agreement == agreeing
    assert stop.mean_steps == answers.steps.double().mean().item()
    assert stop.mean_steps < 16
    batches = images.split(70)
    again = snm.calibrate_stop(net, reference, batches, agreement=agreement, max_steps=32)
    assert again.leads == pytest.approx(stop.leads)


def test_a_higher_agreement_takes_more_steps() -> None:
    model, net = sure_network()
    images = torch.rand(300, 6)
    taken = [
        snm.calibrate_stop(net, model, images, agreement=agreement, max_steps=32).mean_steps
        for agreement in (0.8, 0.9, 0.98)
    ]
    assert taken == sorted(taken)
    assert taken[0] < taken[-1]


def test_first_and_last_steps_are_kept_to() -> None:
    model, net = sure_network()
    images = torch.rand(300, 6)
    stop = snm.calibrate_stop(net, model, images, agreement=0.8, min_steps=5, max_steps=12)
    assert stop.max_steps == 12
    steps = net.until(images, stop).steps
    assert (int(steps.min()), int(steps.max()) <= 12) == (5, True)
    only = snm.calibrate_stop(net, model, images, agreement=0.8, min_steps=12, max_steps=12)
    assert net.until(images, only).steps.tolist() == [12] * 300


def test_counts_are_calibrated_too() -> None:
    model, calibration, _ = exact_network("plain")
    images = exact_images(60, seed=3)
    net = snm.convert(model, calibration, readout="count", preset="snm-zero")
    stop = snm.calibrate_stop(net, None, images, agreement=0.8, max_steps=32)
    answers = net.until(images, stop)
    agreeing = answers.predictions == net(images, timesteps=32).argmax(1)
    assert agreeing.double().mean().item() == stop.agreement >= 0.8
    assert stop.mean_steps < 32


def test_what_calibration_refuses() -> None:
    model, net = sure_network()
    images = torch.rand(50, 6)
    with pytest.raises(TypeError, match="net must be a SpikingNetwork, got Sequential"):
        snm.calibrate_stop(model, model, images)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        snm.calibrate_stop(net, "model", images)
    with pytest.raises(ValueError, match="model is in training mode"):
        snm.calibrate_stop(net, nn.Sequential(nn.Linear(6, 4)), images)
    for agreement in (0.0, 1.0, -1, math.nan):
        with pytest.raises(ValueError, match="agreement must be above 0 and below 1"):
            snm.calibrate_stop(net, model, images, agreement=agreement)
    with pytest.raises(TypeError, match=r"agreement must be a number, got '0\.9'"):
        snm.calibrate_stop(net, model, images, agreement="0.9")
    with pytest.raises(ValueError, match="min_steps must be at most max_steps=4, got 5"):
        snm.calibrate_stop(net, model, images, min_steps=5, max_steps=4)
    with pytest.raises(ValueError, match="images must hold at least one image, got none"):
        snm.calibrate_stop(net, model, [])
    with pytest.raises(ValueError, match=r"agreement must be at most the 0\.\d+ that 1 steps"):
        snm.calibrate_stop(net, model, images, agreement=0.999, max_steps=1)
    frames = snm.convert(model, images, encoder="frames")
    with pytest.raises(ValueError, match="calibrate_stop: takes a network with encoder='direct'"):
        snm.calibrate_stop(frames, model, images)


@pytest.mark.parametrize(("agreeing", "count"), [(1990, 2000), (500, 500), (3, 7), (0, 5)])
def test_the_share_to_rely_on_is_the_binomial_one(agreeing: int, count: int) -> None:
    share = Fraction(at_least(agreeing, count, 0.95))
    chance = sum(
        math.comb(count, k) * share**k * (1 - share) ** (count - k)
        for k in range(agreeing, count + 1)
    )
    assert (float(chance) == pytest.approx(0.05, rel=1e-6)) if agreeing else share == 0


@torch.no_grad()
def test_a_confidence_leaves_room() -> None:
    model, images = load_network(), load_images()
    net = snm.convert(model, images.calibration_images[:200], preset="snm-zero")
    seen, options = images.test_images[:300], {"agreement": 0.95, "max_steps": 16}
    plain = snm.calibrate_stop(net, model, seen, **options)
    sure = snm.calibrate_stop(net, model, seen, confidence=0.9, **options)
    assert sure.agreement_at_least >= 0.95 > plain.agreement_at_least
    assert at_least(round(300 * sure.agreement), 300, 0.9) == sure.agreement_at_least
    # One more that differs would be too many.
    assert at_least(round(300 * sure.agreement) - 1, 300, 0.9) < 0.95
    assert sure.mean_steps > plain.mean_steps
    # 0.99 ** 298 is above 0.05, 0.99 ** 299 below.
    with pytest.raises(ValueError, match=r"images must be at least 299 .*confidence=0.95, got 298"):
        snm.calibrate_stop(net, model, seen[:298], agreement=0.99, confidence=0.95)


@torch.no_grad()
def test_half_the_steps_on_images_that_were_not_calibrated_on() -> None:
    model, images = load_network(), load_images()
    net = snm.convert(model, images.calibration_images, preset="snm-zero")
    held_back, others = images.test_images[1000:].split(500)
    stop = snm.calibrate_stop(net, model, held_back, agreement=0.995, max_steps=32)
    wanted = model(others).argmax(1)
    answers = net.until(others, stop)
    agreeing = int((answers.predictions == wanted).count_nonzero())
    by_step = net.anytime(others, timesteps=32).argmax(-1)
    fixed = (by_step == wanted).sum(1) >= agreeing
    first = int(fixed.to(torch.uint8).argmax()) + 1
    mean = answers.steps.double().mean().item()
    print(f"{agreeing} of 500 agree after {mean:.2f} steps on average, or after {first} for all")
    assert stop.agreement is not None
    assert stop.agreement_at_least is not None
    assert 0.98 < stop.agreement_at_least < 0.995 <= stop.agreement
    assert agreeing >= stop.agreement_at_least * 500
    assert mean <= first / 2

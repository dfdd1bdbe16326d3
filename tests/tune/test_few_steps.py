"""What tuned networks lose in few time steps, on images that they were not tuned on."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import snm
from snm.bench.few_steps_networks import digit_recognizer
from snm.demo import load_images, load_network

BATCH = 250
AMPLE = 3600.0
"""A budget that no machine uses up, however loaded."""
SIGMAS = 2
"""By how many standard errors of the test images' figure a loss may exceed what it should be."""

pytestmark = pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")


@torch.no_grad()
def right(network: nn.Module, images: Tensor, labels: Tensor, **arguments: int) -> Tensor:
    """1 for images that get their class, 0 for others."""
    batches = images.split(BATCH)
    return (torch.cat([network(b, **arguments).argmax(1) for b in batches]) == labels).double()


def loss_and_error(relu: Tensor, spiking: Tensor) -> tuple[float, float]:
    """By how many points the one is right more often, and the standard error of that."""
    difference = 100 * (relu - spiking)
    return difference.mean().item(), difference.std().item() / len(difference) ** 0.5


@pytest.mark.parametrize(
    ("timesteps", "max_spikes", "most"), [(2, 1, 2.5), (4, 1, 0.6), (8, 1, 0.2), (2, 4, 0.5)]
)
def test_the_packaged_network_loses_little(timesteps: int, max_spikes: int, most: float) -> None:
    images, model = load_images(), load_network()
    tested = (images.test_images, images.test_labels)
    calibration = images.calibration_images[:500]
    tuned = snm.tune(model, calibration, timesteps=timesteps, max_spikes=max_spikes, budget=AMPLE)
    found = right(tuned.net, *tested, timesteps=timesteps)
    loss, error = loss_and_error(right(model, *tested), found)
    print(f"{tuned}\nT = {timesteps}: loses {loss:.2f} points, standard error {error:.2f}")
    assert tuned.chosen == "tuned"
    assert loss - SIGMAS * error <= most


def test_the_digit_network_loses_little() -> None:
    case = digit_recognizer(Path())
    tuned = snm.tune(case.model, case.calibration, timesteps=8, budget=AMPLE)
    found = right(tuned.net, case.images, case.labels, timesteps=8)
    loss, error = loss_and_error(right(case.model, case.images, case.labels), found)
    print(f"{tuned}\nloses {loss:.2f} points, standard error {error:.2f}")
    assert loss <= 0.3

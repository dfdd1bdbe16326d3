"""A simulation's memory does not grow with the number of time steps, and chunks change nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import snm
from snm.network import memory
from support.zoo import published

TESTS = Path(__file__).parents[1]

# ResNet-18, batch 8; prints the most memory that the process ever held, in KiB.
PROGRAM = """
import resource, sys, warnings
import torch
from support.zoo import published

import snm

warnings.simplefilter("ignore", snm.DeadNeuronWarning)
model, _ = published("resnet18")
images = torch.randn(8, 3, 32, 32)
net = snm.convert(model, images)
net(images, timesteps=int(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(timesteps: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(timesteps)],
        cwd=TESTS,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


@pytest.mark.needs("torchvision")
def test_resnet18_takes_as_much_for_256_steps_as_for_8() -> None:
    few, many = peak(8), peak(256)
    print(f"peak memory: {few / 1024:.0f} MiB at T = 8, {many / 1024:.0f} MiB at T = 256")
    assert many <= 1.2 * few


@pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")
def test_chunks_change_no_bit_of_resnet18() -> None:
    model, _ = published("resnet18")
    images = torch.randn(4, 3, 32, 32)
    answers = [
        snm.convert(model, images, chunk_steps=steps)(images, timesteps=16)
        for steps in (1, 5, 8, 16)
    ]
    assert all(torch.equal(answer, answers[0]) for answer in answers)


def test_steps_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "available_bytes", lambda _: 2**40)
    assert [memory.steps_that_fit(size, cpu) for size in (2**20, 2**25, 2**26, 2**40)] == [
        *(64, 2, 1, 1)
    ]
    assert memory.steps_that_fit(2**26, torch.device("cuda")) == 16
    monkeypatch.setattr(memory, "available_bytes", lambda _: 4000)
    assert [memory.steps_that_fit(size, cpu) for size in (125, 130, 500, 501, 10**9)] == [
        *(8, 7, 2, 1, 1)
    ]


@pytest.mark.filterwarnings("ignore::snm.DeadNeuronWarning")
def test_little_memory_makes_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 100), torch.nn.ReLU(), torch.nn.Linear(100, 3))
    images = torch.rand(10, 4)
    net = snm.convert(model.eval(), images)
    expected = net(images, timesteps=8)
    chunks: list[int] = []
    net.layers["1"].register_forward_hook(lambda _, inputs, __: chunks.append(len(inputs[0])))
    # 100 neurons of 10 images and what drives them, 4 bytes each, are 8,000 bytes a step. Chunks
    # are of one length, as far as that goes.
    for free, steps in ((10**9, [8]), (4 * 5 * 8000, [4, 4]), (4 * 3 * 8000, [3, 3, 2])):
        chunks.clear()
        monkeypatch.setattr(memory, "available_bytes", lambda _, free=free: free)
        assert torch.equal(net(images, timesteps=8), expected)
        assert chunks == steps
    chunks.clear()
    monkeypatch.setattr(memory, "available_bytes", lambda _: 100)
    assert torch.equal(net(images, timesteps=8), expected)
    assert chunks == [1] * 8

"""The number of threads changes no bit."""

from collections.abc import Iterator

import pytest
import torch

from snm_kernels import SNMOutput, SNMState, preset, snm
from snm_kernels import numpy as snm_numpy
from support.cases import Case
from support.equality import assert_same_run


@pytest.fixture(autouse=True)
def _restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


SPLIT = [
    Case("even parts", 32, (64, 256), preset("snm-half")),
    Case("a block cut short", 33, (20011,), threshold="number", bias="last"),
    Case("one block a thread", 2048, (65,), threshold="last", emit="spike"),
    Case(
        "channels_last", 16, (4, 6, 25, 31), layout="channels_last", threshold="channel", bias="row"
    ),
    Case("half", 16, (30011,), preset("burst"), torch.float16, "spike", threshold="last"),
]


@pytest.mark.parametrize("case", SPLIT, ids=str)
def test_threads_change_no_bit(case: Case) -> None:
    inputs = case.inputs()
    torch.set_num_threads(1)
    alone = snm(**inputs)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.get_num_threads() == threads
        assert_same_run(snm(**inputs), alone)


@pytest.mark.parametrize("threads", [1, 2, 3, 1000])
def test_numpy_threads_change_no_bit(threads: int) -> None:
    case = Case("work for three", 64, (50011,), preset("snm-zero"), emit="spike", threshold="last")
    inputs = case.inputs()
    expected = snm(**inputs)
    spikes, state = snm_numpy.snm(
        inputs["x"].numpy(),
        inputs["threshold"].numpy(),
        rule=case.rule,
        emit="spike",
        threads=threads,
    )
    actual = SNMOutput(torch.from_numpy(spikes), SNMState(*map(torch.from_numpy, state)))
    assert_same_run(actual, expected)

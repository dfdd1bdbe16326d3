"""Kernels timed over buffers in turn: how many, and what the graph of their calls records."""

import doctest
import importlib
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from snm.bench import rotation, suite, timing, workload
from snm.bench.rotation import CACHES, MOST_SETS, Turns, in_turn, sets_needed, sets_of
from snm.bench.scale import SCALES
from snm.bench.workload import Workload

MEGABYTE = 2**20
SMALL = Workload("cpu", timesteps=4, batch=1, features=(64,))


class Graphs:
    """Stands for torch.cuda: notes what is done while a graph records, and replays it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.recording = False
        self.replays = 0

    def call(self, name: str) -> None:
        self.log.append(f"{name}, {'recorded' if self.recording else 'run'}")

    def replay(self) -> None:
        self.replays += 1

    def CUDAGraph(self) -> SimpleNamespace:
        return SimpleNamespace(replay=self.replay)

    def Stream(self) -> SimpleNamespace:
        return SimpleNamespace(wait_stream=lambda _: None)

    current_stream = Stream

    @contextmanager
    def stream(self, _: object):
        yield

    @contextmanager
    def graph(self, _: object):
        self.recording = True
        yield
        self.recording = False

    def get_device_properties(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(L2_cache_size=1000)

    def synchronize(self) -> None:
        self.log.append("synchronize")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    fake = Graphs()
    for name in ("CUDAGraph", "Stream", "current_stream", "stream", "graph", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(torch.cuda, "get_device_properties", fake.get_device_properties)
    return fake


@pytest.mark.parametrize("cache", [6 * MEGABYTE, 50 * MEGABYTE, 126 * MEGABYTE])
@pytest.mark.parametrize("drive", [2**16, MEGABYTE, 2**27, 2**31])
def test_drives_in_turn_are_several_times_the_cache(drive: int, cache: int) -> None:
    sets = sets_needed(drive, cache)
    assert sets * drive >= CACHES * cache or sets == MOST_SETS
    assert (sets - 1) * drive < CACHES * cache


def test_tiny_layers_take_no_end_of_buffers() -> None:
    assert sets_needed(4, 60 * MEGABYTE) == MOST_SETS


def test_a_graph_records_every_call_once_after_one_that_is_not(graphs: Graphs) -> None:
    turns = Turns([partial(graphs.call, name) for name in "abc"])
    assert graphs.log == ["a, run", "a, recorded", "b, recorded", "c, recorded"]
    turns()
    turns()
    assert graphs.replays == 2


@pytest.mark.usefixtures("graphs")
def test_recorded_results_share_no_memory() -> None:
    """As a graph's pool does, memory that is free again is lent to the next call."""
    lent: list[int] = []

    class Result:
        def __init__(self) -> None:
            self.place = min(set(range(len(lent) + 1)).difference(lent))
            lent.append(self.place)

        def __del__(self) -> None:
            lent.remove(self.place)

    turns = Turns([Result] * 3)
    assert sorted(result.place for result in turns.results) == sorted(lent) == [0, 1, 2]


@pytest.mark.usefixtures("graphs")
def test_the_buffers_live_as_long_as_the_graph() -> None:
    freed: list[str] = []

    class Buffer:
        def __del__(self) -> None:
            freed.append("buffer")

    turns = Turns([partial(lambda _: None, Buffer())])
    assert freed == []
    del turns
    assert freed == ["buffer"]


def test_on_a_cpu_the_only_set_is_called() -> None:
    assert len(sets_of(SMALL)) == 1
    call = in_turn(SMALL, lambda inputs: partial(inputs.out.copy_, inputs.drive))
    call()
    inputs = workload.inputs_of(SMALL)
    assert torch.equal(inputs.out, inputs.drive)


def test_sets_are_equal_and_share_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    size = Workload("cpu", timesteps=4, batch=1, features=(60,))
    monkeypatch.setattr(rotation, "cache_bytes", lambda _: 600)
    sets = sets_of(size)
    assert len(sets) == 3
    assert all(torch.equal(each.drive, sets[0].drive) for each in sets)
    places = {tensor.data_ptr() for each in sets for tensor in (each.drive, each.out)}
    assert len(places) == 6


@pytest.mark.usefixtures("graphs")
def test_the_cache_is_the_device_s() -> None:
    assert rotation.cache_bytes("cuda") == 1000
    assert rotation.cache_bytes("cpu") == 0


class Benchmark:
    """pytest-benchmark's fixture, as far as it is used."""

    def __init__(self) -> None:
        self.extra_info: dict[str, object] = {}
        self.stats = None

    def pedantic(self, run, setup, rounds: int) -> None:
        for _ in range(rounds):
            setup()
            run()
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=[8.0] * rounds))


def test_times_are_of_one_call(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_launches", lambda *_: (2, 1.0))
    benchmark = Benchmark()
    timing.time_beside(
        benchmark, lambda: None, "cuda", 0.0, {"copy_": lambda: None}, calls=4, suite="op"
    )
    row = benchmark.extra_info
    assert row["seconds"] == 1.0
    assert row["calls"] == 4
    assert graphs.log == ["synchronize"] * 2 * timing.MIN_ROUNDS


def test_a_gpu_runs_first_what_its_page_needs() -> None:
    ran = [part.suite for part in suite.parts("cuda", "full")]
    assert ran[:2] == ["op", "chunks"]
    module = importlib.import_module("snm.bench.timed.neuron")
    sizes = {
        (case.workload.timesteps, case.workload.neurons)
        for case in module.cases("cuda", SCALES["full"])
    }
    assert sizes == {(32, 2**20), (32, 2**22), (32, 2**24), (256, 2**12), (256, 2**16)}


@pytest.mark.parametrize("name", ["rotation", "timed.chunks"])
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"snm.bench.{name}"))
    assert result.attempted > 0
    assert result.failed == 0

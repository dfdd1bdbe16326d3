"""Simulates the weak scaling of ``snm evaluate`` from what a run with several processes measured.

    python bench/scaling.py snm-evaluation/result.json --latency 20e-6 --bandwidth 12.5e9

Every process is given as many shards as a process of the run had, with times drawn from those
that were measured, so that the slowest of many is slower than the mean. Exchanges take place one
after the other, as a tree of messages for the latency and a ring for the bandwidth. It leaves out
that processes disturb each other, above all when they read.
"""

import argparse
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from snm.bench.markdown import aligned, number, table

RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
NETWORKS = {"10 Gbit/s, 50 µs": (50e-6, 1.25e9), "100 Gbit/s, 5 µs": (5e-6, 12.5e9)}
"""The latency in seconds and the bandwidth in bytes a second of each network that the page
assumes."""
_DRAWS = 20
"""How many draws a mean is taken of."""


class Job(NamedTuple):
    """How long a simulated job takes."""

    ranks: int
    seconds: float
    exchanging: float
    """Seconds of them in exchanges."""
    efficiency: float
    """Images a second and process, in those of one process."""


def simulate(
    result: Mapping[str, Any], ranks: int, *, latency: float, bandwidth: float, seed: int = 0
) -> Job:
    """Simulates a job of ``ranks`` processes, each with as much work as one of the run.

    Args:
        result: the result of ``snm evaluate``, from at least two processes.
        ranks: the number of processes, >= 1.
        latency: that of a message, in seconds.
        bandwidth: that of a process's connection, in bytes a second.
        seed: that of the draws.

    Raises:
        ValueError: the result is that of one process, which exchanged nothing.
    """
    if result["processes"] < 2:
        raise ValueError(
            f"scaling: result must be of at least 2 processes, got {result['processes']}"
        )
    exchanging = _exchanging(result["communication"], ranks, latency, bandwidth)
    start = result["preparation_seconds"]
    alone, slowest = _shards(result, 1, seed), _shards(result, ranks, seed)
    seconds = start + slowest + exchanging
    return Job(ranks, seconds, exchanging, (start + alone) / seconds)


def _shards(result: Mapping[str, Any], ranks: int, seed: int) -> float:
    """How many seconds it takes until the last process has its shards, as the mean of some draws;
    for one process the expected time."""
    times = [shard["seconds"] + shard["waited"] for shard in result["shards"]]
    each = math.ceil(len(times) / result["processes"])
    if ranks == 1:
        return each * fmean(times)
    draw = random.Random(seed)
    return fmean(max(sum(draw.choices(times, k=each)) for _ in range(ranks)) for _ in range(_DRAWS))


def _exchanging(
    communication: Mapping[str, int], ranks: int, latency: float, bandwidth: float
) -> float:
    """How many seconds exchanges take: reductions go around a ring twice, broadcasts along a
    pipeline, and in a gathering every process gets what all others have."""
    if ranks == 1:
        return 0.0
    rounds = 2 * math.ceil(math.log2(ranks)) * communication["exchanges"]
    sizes = (
        2 * (ranks - 1) / ranks * communication["reduced"]
        + communication["broadcast"]
        + (ranks - 1) * communication["gathered"]
    )
    return rounds * latency + sizes / bandwidth


def scaling_table(result: Mapping[str, Any], networks: Mapping[str, tuple[float, float]]) -> str:
    """A table of simulated jobs by the number of processes, for networks of some latencies and
    bandwidths."""
    head = ["processes"]
    for name in networks:
        head += [f"seconds, {name}", "exchanging", "efficiency"]
    rows = []
    for ranks in RANKS:
        row = [f"{ranks:,}"]
        for latency, bandwidth in networks.values():
            job = simulate(result, ranks, latency=latency, bandwidth=bandwidth)
            row += [number(job.seconds), number(job.exchanging), f"{job.efficiency:.2f}"]
        rows.append(tuple(row))
    return table(tuple(head), rows, words=0)


def scaling_tables(records: Path) -> str:
    """The page's tables, one for each ``result.json`` of a run in ``bench/records/scaling/``."""
    sections = []
    for path in sorted((records / "scaling").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        settings, shards = result["settings"], result["shards"]
        times = [shard["seconds"] + shard["waited"] for shard in shards]
        sent = result["communication"]
        sections += [
            f"{path.stem}, {result['processes']} processes, {shards[0]['computed_on']} each: "
            f"{settings['model']}, {result['images']:,} images, T = {settings['timesteps']}, "
            f"norm `{settings['norm']}`, statistic `{settings['statistic']}`; {len(shards)} shards "
            f"of {settings['batch_size']} images, {number(min(times))} to {number(max(times))} s "
            f"each, {number(result['preparation_seconds'])} s to load and calibrate. Exchanged by "
            f"a process: {sent['reduced']:,} bytes reduced, {sent['broadcast']:,} broadcast, "
            f"{sent['gathered']:,} gathered, in {sent['exchanges']} exchanges.",
            "",
            scaling_table(result, NETWORKS),
        ]
    return "\n".join(sections) or "Not yet measured.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulates weak scaling of snm evaluate.")
    parser.add_argument("result", type=Path, help="result.json of at least two processes")
    parser.add_argument("--latency", type=float, default=5e-6, metavar="SECONDS")
    parser.add_argument("--bandwidth", type=float, default=12.5e9, metavar="BYTES_A_SECOND")
    options = parser.parse_args()
    result = json.loads(options.result.read_text(encoding="utf-8"))
    network = {"simulated": (options.latency, options.bandwidth)}
    print(aligned(scaling_table(result, network)))


if __name__ == "__main__":
    main()

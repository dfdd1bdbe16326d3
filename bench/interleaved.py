"""The op against ``copy_`` on a machine that other work shares: rounds of all contenders in turn.

``pytest bench`` times one contender after another, which is right on a quiet machine. Here every
round runs each contender once, so that what slows the machine down slows all of them down.

    python bench/interleaved.py sizes        # T and number of neurons
    python bench/interleaved.py contenders   # dtypes and what is sent, T = 32, 2^20 neurons
    python bench/interleaved.py layouts      # layouts, parameters and residuals, the same size
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from snm_kernels import build_info, snm
from timing import HEAP
from workload import Workload, inputs_of

FLOAT32 = torch.float32
SIZES = [
    (4, 2**12),
    (32, 2**12),
    (256, 2**12),
    (1024, 2**12),
    (32, 2**14),
    (4, 2**16),
    (32, 2**16),
    (1024, 2**16),
    (32, 2**18),
    (4, 2**20),
    (32, 2**20),
    (4, 2**24),
]


class Contender(NamedTuple):
    """What is timed, and the bytes that it has to move per neuron and step."""

    name: str
    run: Callable[[], object]
    bytes_moved: float


def size_contenders(timesteps: int, neurons: int) -> list[Contender]:
    drive, threshold, out = inputs_of(
        Workload("cpu", timesteps=timesteps, batch=1, features=(neurons,))
    )
    return [
        Contender("copy_", lambda: out.copy_(drive), 8),
        Contender("amplitude", lambda: snm(drive, threshold, out=out), 8),
    ]


def main_contenders() -> list[Contender]:
    drive, threshold, out = inputs_of(Workload("cpu"))
    spikes = torch.zeros_like(drive, dtype=torch.int8)
    contenders = [
        Contender("copy_", lambda: out.copy_(drive), 8),
        Contender("sum (a pure read)", drive.sum, 4),
        Contender("float32, amplitude", lambda: snm(drive, threshold, out=out), 8),
        Contender("float32, spike", lambda: snm(drive, threshold, emit="spike", out=spikes), 5),
        Contender("float32, none", lambda: snm(drive, threshold, emit="none"), 4),
        Contender("clone, fresh output", drive.clone, 8),
        Contender("float32, fresh output", lambda: snm(drive, threshold), 8),
    ]
    in_place = drive.clone()
    contenders.append(
        Contender("float32, in place", lambda: snm(in_place, threshold, out=in_place), 8)
    )
    for dtype in (torch.bfloat16, torch.float16):
        contenders.append(half_contender(drive.to(dtype), threshold))
    return contenders


def half_contender(drive: Tensor, threshold: Tensor) -> Contender:
    out = torch.zeros_like(drive)
    name = f"{str(drive.dtype).removeprefix('torch.')}, amplitude"
    return Contender(name, lambda: snm(drive, threshold, out=out), 4)


def layout_contenders() -> list[Contender]:
    drive, threshold, out = inputs_of(Workload("cpu"))
    channels_last = drive.movedim(2, -1).contiguous().movedim(-1, 2)
    out_last = torch.zeros_like(channels_last)
    per_channel = threshold[:, :1, :1].contiguous()
    bias = torch.full_like(threshold, 0.125)
    residual = drive.flip(0)
    constant = drive[:1].expand_as(drive)
    return [
        Contender("copy_", lambda: out.copy_(drive), 8),
        Contender("plain", lambda: snm(drive, threshold, out=out), 8),
        Contender("channels_last", lambda: snm(channels_last, threshold, out=out_last), 8),
        Contender("per-channel θ", lambda: snm(drive, per_channel, out=out), 8),
        Contender(
            "channels_last, per-channel θ", lambda: snm(channels_last, per_channel, out=out_last), 8
        ),
        Contender("bias", lambda: snm(drive, threshold, bias=bias, out=out), 8),
        Contender("residual", lambda: snm(drive, threshold, residual=residual, out=out), 12),
        Contender("constant drive", lambda: snm(constant, threshold, out=out), 4),
    ]


def show(contenders: list[Contender], neuron_steps: int, seconds: float) -> None:
    """Times all in turn; prints medians, minima and bandwidth as a share of that of ``copy_``."""
    times: list[list[float]] = [[] for _ in contenders]
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 7 or time.perf_counter() < end:
        for contender, own in zip(contenders, times, strict=True):
            start = time.perf_counter()
            contender.run()
            own.append(time.perf_counter() - start)
        rounds += 1
    yardstick = contenders[0].bytes_moved / statistics.median(times[0])
    for contender, own in zip(contenders, times, strict=True):
        median = statistics.median(own)
        share = contender.bytes_moved / median / yardstick
        print(
            f"{contender.name:30} median {1e9 * median / neuron_steps:.3f} "
            f"min {1e9 * min(own) / neuron_steps:.3f} ns  of copy_ {share:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["sizes", "contenders", "layouts"])
    parser.add_argument("--seconds", type=float, default=3, help="per group")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{build_info().isa}, {torch.get_num_threads()} threads, {HEAP}")
    if arguments.what == "sizes":
        for timesteps, neurons in SIZES:
            print(f"T = {timesteps}, {neurons} neurons")
            show(size_contenders(timesteps, neurons), timesteps * neurons, arguments.seconds)
        return
    contenders = main_contenders() if arguments.what == "contenders" else layout_contenders()
    show(contenders, Workload("cpu").neuron_steps, arguments.seconds)


if __name__ == "__main__":
    main()

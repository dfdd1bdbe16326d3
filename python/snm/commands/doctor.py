"""``snm doctor``: what this copy is, which backends run here and whether those are right."""

import argparse
import math

import torch

import snm_kernels

from .self_test import Backend, SelfTest, self_test

_TESTED: tuple[Backend, ...] = ("cpu", "cuda", "triton")


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``snm doctor`` to the command line."""
    parser = commands.add_parser(
        "doctor", help="say which backends run here and, of the others, why not; test those that do"
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Runs ``snm doctor`` and returns its exit status."""
    return examine()


def examine() -> int:
    """Prints what this copy is, which backends run, and how their self-tests went.

    Returns:
        The exit status: 0, or 1 where a backend that says it is available differs from the
        reference or fails.

    >>> examine()  # doctest: +ELLIPSIS
    snm-kernels ...
    0
    """
    _print_build()
    print("backends")
    statuses = snm_kernels.backends()
    for name, status in statuses.items():
        print(f"  {name:<10} {'available' if status.available else f'no: {status.reason}'}")
    print("self-test: spikes and state against the reference, bit for bit")
    failed = False
    for tested in _TESTED:
        if statuses[tested].available:
            result = self_test(tested)
            failed = failed or bool(result.wrong)
            print(f"  {tested:<10} {_shown(result)}")
    return int(failed)


def _print_build() -> None:
    info = snm_kernels.build_info()
    print(f"snm-kernels {info.version}")
    print(f"  built with    {info.cxx_compiler}, for torch {info.oldest_torch} and newer")
    if info.cuda_compiler:
        print(f"  CUDA library  {info.cuda_compiler}, targets {info.cuda_architectures}")
    else:
        print("  CUDA library  none in this build")
    print(f"  instructions  {info.isa}, matrices by {info.matrix}")
    print(f"  running on    torch {torch.__version__}, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        major, minor = torch.cuda.get_device_capability(index)
        print(f"  GPU {index}         {torch.cuda.get_device_name(index)}, sm_{major}{minor}")


def _shown(result: SelfTest) -> str:
    if result.wrong:
        return f"WRONG: {result.wrong}"
    line = f"equal in {result.cases} cases"
    if not math.isnan(result.bandwidth):
        line += (
            f"; {result.bandwidth / 1e9:.1f} GB/s, {result.bandwidth / result.copy_bandwidth:.2f} "
            f"of copy_'s {result.copy_bandwidth / 1e9:.1f}"
        )
    return line

"""Runs the shared cases on the kernels compiled for the host and on the reference.

A program of its own, as the library takes the place of the CPU's kernels in its process.
"""

import argparse
import ctypes
import json
from pathlib import Path

import torch

from support.cases import CASES, COUNTED, IN_PLACE
from support.parity import compare, compare_all, compare_counted, compare_in_place
from support.running_max_cases import POOL_CASES
from support.running_max_parity import compare_pooling


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library", type=Path)
    parser.add_argument("--multiprocessors", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the order of blocks and threads")
    parser.add_argument("--match", default="", help="runs the cases with this in their names")
    parser.add_argument("--kinds", nargs="*", help="of cases; all unless some are named")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.ops.load_library(arguments.library)
    device = ctypes.CDLL(str(arguments.library))
    device.emulated_launches.restype = ctypes.c_int64
    device.emulated_set(arguments.multiprocessors, arguments.seed)
    kinds = {
        "neuron": (compare, CASES),
        "counted": (compare_counted, COUNTED),
        "in place": (compare_in_place, IN_PLACE),
        "pooling": (compare_pooling, POOL_CASES),
    }
    cases, failures = {}, []
    for kind in arguments.kinds or kinds:
        run, listed = kinds[kind]
        chosen = [(run, case) for case in listed if arguments.match in case.name]
        _, failed = compare_all(chosen, "cpu")
        cases[kind] = len(chosen)
        failures += failed
    launches = {n: device.emulated_launches(n) for n in range(1, 1025)}
    launches = {n: count for n, count in launches.items() if count > 0}
    summary = {"seed": arguments.seed, "cases": cases, "launches": launches}
    print(json.dumps({**summary, "failures": failures}))


if __name__ == "__main__":
    main()

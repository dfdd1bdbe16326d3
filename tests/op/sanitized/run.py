"""Runs the cases of layers of spikes on kernels compiled with sanitizers and on the reference.

A program of its own, as the library takes the place of the CPU's kernels in its process.
"""

import argparse
import json
from pathlib import Path

import torch

from support.parity import compare_all
from support.spike_conv_cases import CONV_CASES, FLOAT_CASES
from support.spike_conv_parity import compare_layer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library", type=Path)
    parser.add_argument("--match", default="", help="runs the cases with this in their names")
    parser.add_argument("--every", type=int, default=1, help="n-th case is run")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.ops.load_library(arguments.library)
    every = (*CONV_CASES, *FLOAT_CASES)
    cases = [case for case in every if arguments.match in case.name][:: arguments.every]
    steps, failures = compare_all([(compare_layer, case) for case in cases], "cpu")
    print(json.dumps({"cases": len(cases), "neuron_steps": steps, "failures": failures}))


if __name__ == "__main__":
    main()

"""Compares random layers of spikes on the CPU with the reference, many more than the tests do.

    python bench/layer_parity.py                          1e8 neuron-steps each, some minutes
    python bench/layer_parity.py --neuron-steps 1e9 --isas avx2 --threads 2

Every instruction set runs in a process of its own. Prints a table of how many neuron-steps were
compared, and fails if one differed.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.isa import USABLE, run_with_isa  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--neuron-steps", type=float, default=1e8)
    parser.add_argument("--isas", nargs="+", default=USABLE, choices=USABLE)
    parser.add_argument("--threads", nargs="+", default=["1", "2"])
    arguments = parser.parse_args()
    steps = str(round(arguments.neuron_steps))
    print("| backend | instruction set | threads | layers | neuron-steps | differ |")
    print("| --- | --- | --- | --- | --- | --- |")
    failed = []
    for isa in arguments.isas:
        command = ["-m", "support.spike_conv_parity", "--backend=cpu", f"--bulk={steps}"]
        process = run_with_isa(isa, *command, "--threads", *arguments.threads)
        if process.returncode != 0:
            failed.append(f"{isa}: {process.stderr}")
            continue
        summary = json.loads(process.stdout)
        failed += [f"{isa}: {failure}" for failure in summary["failures"]]
        if summary["isa"] != isa:
            failed.append(f"{isa}: {summary['isa']} ran")
        for threads, compared in summary["by_threads"].items():
            differ = len(summary["failures"])
            row = ("cpu", isa, threads, summary["cases"], f"{compared:,}", differ)
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    if failed:
        print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

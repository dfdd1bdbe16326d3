"""What a record says of the machine, and that it says nothing of whose machine it is."""

import importlib.metadata
import importlib.util
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import snm_kernels
from timing import HEAP, HEAP_VARIABLES

# Others' work on these cores spoils a record, and above all what many small launches take.
LOAD_AVERAGE = os.getloadavg()[0]
ENVIRONMENT = (*HEAP_VARIABLES, "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "SNM_CPU_ISA")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the contenders for one workload next to each other in time."""
    items.sort(key=_workload)


def _workload(item: pytest.Item) -> str:
    call = getattr(item, "callspec", None)
    return str(call.params.get("workload", "")) if call is not None else ""


def pytest_benchmark_update_machine_info(
    config: pytest.Config,  # noqa: ARG001
    machine_info: dict[str, Any],
) -> None:
    cpu = machine_info["cpu"]
    kept = {
        "cpu": {
            "brand_raw": cpu.get("brand_raw", machine_info["machine"]),
            "cores": len(os.sched_getaffinity(0)),
        },
        "system": machine_info["system"],
        "machine": machine_info["machine"],
        "python": machine_info["python_version"],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_average": LOAD_AVERAGE,
        "heap": HEAP,
        "environment": {name: os.environ.get(name) for name in ENVIRONMENT},
        "snm": snm_kernels.build_info()._asdict(),
        "packages": dict(_versions("spikingjelly", "triton")),
        "gpu": _gpu() if torch.cuda.is_available() else None,
    }
    machine_info.clear()
    machine_info.update(kept)


def pytest_benchmark_update_commit_info(
    config: pytest.Config,  # noqa: ARG001
    commit_info: dict[str, Any],
) -> None:
    for name in commit_info.keys() - {"id", "dirty"}:
        del commit_info[name]


def pytest_benchmark_update_json(
    config: pytest.Config,  # noqa: ARG001
    benchmarks: list[Any],  # noqa: ARG001
    output_json: dict[str, Any],
) -> None:
    """Leaves out single rounds, which make records large, and parameters that aren't JSON."""
    for result in output_json["benchmarks"]:
        result["stats"].pop("data", None)
        del result["params"]


def _versions(*packages: str) -> Iterator[tuple[str, str]]:
    for name in packages:
        if importlib.util.find_spec(name) is not None:
            yield name, importlib.metadata.version(name)


def _gpu() -> dict[str, str]:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    driver = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    name = torch.cuda.get_device_name()
    return {"name": name, "capability": capability, "driver": driver, "cuda": torch.version.cuda}

"""Makes up records of the benchmark."""

from typing import Any

from snm.bench.record import Record

MACHINE = {"cpu": "A processor", "cores": 2, "threads": 2, "isa": "avx512", "gpu": None}


def beside(seconds: float, ratio: float, spread: float = 0.0) -> dict[str, float]:
    return {"seconds": seconds, "ratio": ratio, "spread": spread}


def op_row(contender: str, seconds: float, bytes_moved: float, **others: Any) -> dict[str, Any]:
    """A row of the op's table: 2¹⁰ neurons over 10 steps."""
    return {
        "suite": "op",
        "contender": contender,
        "backend": "cpu",
        "yardstick": "copy_",
        "bytes_per_neuron_step": bytes_moved,
        "dtype": "float32",
        "timesteps": 10,
        "neurons": 1024,
        "device": "cpu",
        "seconds": seconds,
        "spread": 0.0,
        "rounds": 9,
        "beside": {},
        "isa": "avx512",
        **others,
    }


def record(rows: list[dict[str, Any]], **machine: Any) -> Record:
    return Record(
        machine={**MACHINE, **machine},
        versions={"snm-kernels": "1.2.3"},
        commit="commit 0123456789",
        date="2026-01-02",
        scale="full",
        device="cpu",
        environment={"OMP_WAIT_POLICY": "PASSIVE"},
        load_average=0.5,
        rows=rows,
    )

"""Draws the picture of a record, which shows how near to the machine's bandwidth the op runs."""

import hashlib
import json
from pathlib import Path

import matplotlib

from snm.bench.record import Record
from snm.bench.tables import COPY, OURS, READ, bandwidth, share, usual_op

_DTYPES = {"float32": "o", "bfloat16": "s", "float16": "^"}
_SENT = {"amplitude": "tab:blue", "spike": "tab:orange", "none": "tab:green"}


def draw(record: Record, path: Path) -> None:
    """Draws a record as SVG: the roofline at T = 32, and the sweep's share of ``copy_``.

    Matplotlib's fonts and versions move letters a little, so the file carries a digest of what is
    drawn, which :func:`digest` gives again.
    """
    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "snm", "font.size": 9})
    figure, (roof, sweep) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    _draw_roofline(record, roof)
    _draw_sweep(record, sweep)
    figure.savefig(path, metadata={"Date": None, "Description": digest(record)})
    pyplot.close(figure)


def digest(record: Record) -> str:
    """A digest of the rows that the picture shows."""
    rows = json.dumps(record.of_suite("op", "rivals", "sweep"), sort_keys=True)
    return f"rows {hashlib.sha256(rows.encode()).hexdigest()[:16]}"


def _best(record: Record) -> dict[str, str]:
    return {"isa": record.machine["isa"]} if record.device == "cpu" else {}


def _warm(record: Record) -> dict[str, str]:
    return {"heap": "warm"} if record.device == "cpu" else {}


def _draw_roofline(record: Record, axes: "matplotlib.axes.Axes") -> None:
    axes.set(xlabel="bytes per neuron-step", ylabel="GB/s", title="T = 32, 2²⁰ neurons")
    for row in usual_op(record, **_best(record)):
        name, dtype = row["contender"], row["dtype"]
        if name in (COPY, READ):
            if dtype == "float32":
                axes.axhline(bandwidth(row), color="0.4", ls="-" if name == COPY else "--", lw=1)
                axes.annotate(f"{name}, float32", (0, bandwidth(row)), va="bottom", color="0.3")
            continue
        color = _SENT[name.removeprefix("snm, ")]
        label = f"{name}, {dtype}, {row['backend']}"
        axes.plot(
            row["bytes_per_neuron_step"],
            bandwidth(row),
            _DTYPES[dtype],
            color=color,
            fillstyle="none" if row["backend"] == "triton" else "full",
            label=label,
        )
    for row in record.of_suite("rivals", **_warm(record)):
        if row["rule"] and not row["contender"].startswith("snm"):
            axes.plot(row["bytes_per_neuron_step"], bandwidth(row), "x", color="0.6")
    axes.plot([], [], "x", color="0.6", label="rivals, float32")
    axes.set(xlim=(0, 9.5), ylim=(0, None))
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_sweep(record: Record, axes: "matplotlib.axes.Axes") -> None:
    axes.set(xlabel="neurons", ylabel="of copy_ bandwidth", title=OURS)
    axes.set_xscale("log", base=2)
    rows = record.of_suite("sweep")
    for backend, steps in dict.fromkeys((row["backend"], row["timesteps"]) for row in rows):
        line = [r for r in rows if (r["backend"], r["timesteps"]) == (backend, steps)]
        line.sort(key=lambda row: int(row["neurons"]))
        axes.plot(
            [row["neurons"] for row in line],
            [share(row, COPY, ()) for row in line],
            "o-",
            label=f"T = {steps}, {backend}",
        )
    axes.axhline(1, color="0.4", lw=1)
    axes.set(ylim=(0, None))
    if rows:
        axes.legend(fontsize=7)

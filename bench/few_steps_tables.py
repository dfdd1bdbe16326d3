"""Makes the tables of what ``bench/few_steps.py`` recorded."""

from pathlib import Path

from snm.bench.markdown import number, ratio, table
from snm.bench.record import Record, Row, read_all

PARTS = ("inherited", "correction", "clipping", "quantisation", "order")
NOT_MEASURED = "Not measured.\n"


def accuracy_table(folder: Path) -> str:
    """A table for each network of how many answers are right, and how many the ReLU network's."""
    sections = []
    for record in _records(folder):
        sections.append(
            f"{_heading(record)} Percent right (percent that get the ReLU network's class).\n"
        )
        for network in record.of_suite("network"):
            rows = record.of_suite("accuracy", network=network["network"])
            steps = sorted({row["timesteps"] for row in rows})
            found: dict[str, dict[int, str]] = {}
            for row in rows:
                cell = f"{_percent(row['accuracy'])} ({_percent(row['agreement'])})"
                found.setdefault(_method(row), {})[row["timesteps"]] = cell
            head = ("", *(f"T = {t}" for t in steps))
            cells = [(name, *(by.get(t, "–") for t in steps)) for name, by in found.items()]
            sections += [_about(network), "", table(head, cells, words=1)]
    return "\n".join(sections)


def tuning_table(folder: Path) -> str:
    """A table of what tuning chose, how long it took, and what is still lost."""
    head = (
        *(
            "network",
            "T",
            "spikes a step",
            "weights",
            "fitted to",
            "chosen",
            "all tried",
            "seconds",
        ),
        "points lost",
    )
    sections = []
    for record in _records(folder):
        relu = {row["network"]: row for row in record.of_suite("network")}
        rows = []
        for row in record.of_suite("accuracy", method="tuned"):
            lost = relu[row["network"]]["accuracy"] - row["accuracy"]
            all_lost = ""
            if "accuracy_of_all" in row:
                whole = relu[row["network"]]["accuracy_of_all"] - row["accuracy_of_all"]
                all_lost = f", of all images {100 * whole:.2f}"
            rows.append(
                (
                    row["network"],
                    str(row["timesteps"]),
                    str(row["max_spikes"]),
                    "fitted" if row["weights"] else "kept",
                    str(row["fitted_to"]),
                    f"`{row['chosen']}`",
                    "yes" if row["complete"] else "no",
                    number(row["seconds"]),
                    f"{100 * lost:.2f}{all_lost}",
                )
            )
        sections.append(table(head, rows, words=1) if rows else NOT_MEASURED)
    return "\n".join(sections)


def until_table(folder: Path) -> str:
    """A table of images stopped early, beside a fixed number of steps that agrees as often."""
    head = (
        "network",
        "",
        "to agree with",
        "asked",
        "agreement",
        "mean steps",
        "fixed T",
        "its agreement",
        "steps / fixed T",
        "time / fixed T's",
    )
    sections = []
    for record in _records(folder):
        rows = [_until_row(row) for row in record.of_suite("until")]
        sections.append(table(head, rows, words=3) if rows else NOT_MEASURED)
    return "\n".join(sections)


def diagnosis_table(folder: Path) -> str:
    """A table of the parts of each layer's error."""
    head = ("", "layer", "error", *PARTS, "saturated", "negative spikes")
    sections = []
    for record in _records(folder):
        found = record.of_suite("diagnosis")
        if not found:
            sections.append(NOT_MEASURED)
            continue
        rows = []
        for row in found:
            scale = 100 / row["activation"]
            parts = [f"{scale * row['parts'][part]:.2f}" for part in PARTS]
            shares = [f"{100 * row[share]:.1f} %" for share in ("saturated", "negative")]
            error = f"{scale * row['error']:.2f}"
            rows.append((_method(row), row["layer"], error, *parts, *shares))
        advice = {_method(row): row["advice"] for row in found}
        first = found[0]
        sections += [
            f"`{first['network']}`, T = {first['timesteps']}, {first['images']} images; percent of "
            "the layer's mean activation.",
            "",
            table(head, rows, words=2),
            *(f"- {name}: {text}" for name, text in advice.items()),
            "",
        ]
    return "\n".join(sections)


def photos_table(folder: Path) -> str:
    """A table of how many labelled photos EfficientNet-Lite0 gets right."""
    head = ("T", "`snm-zero`", "tuned", "chosen", "all tried", "seconds to tune")
    sections = []
    for record in _records(folder):
        found = record.of_suite("photos")
        if not found:
            sections.append(NOT_MEASURED)
            continue
        rows = [
            (
                str(row["timesteps"]),
                *(str(row["right"][name]) for name in ("snm-zero", "tuned")),
                ", ".join(f"`{name}`" for name in row["chosen"]),
                "yes" if row["complete"] else "no",
                number(row["seconds"]),
            )
            for row in found
        ]
        sections += [
            f"Right of {found[0]['photos']}; the ReLU network: {found[0]['ann']}.",
            "",
            table(head, rows, words=0),
        ]
    return "\n".join(sections)


def _records(folder: Path) -> list[Record]:
    return list(read_all(folder / "few-steps").values())


def _heading(record: Record) -> str:
    machine, versions = record.machine, record.versions
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return (
        f"**{machine['cpu']}, {threads}, {machine['isa']}**; snm-kernels "
        f"{versions['snm-kernels']}, torch {versions['torch']}; {record.date}, {record.commit}."
    )


def _about(row: Row) -> str:
    text = (
        f"`{row['network']}`, {row['parameters']:,} parameters, on {row['about']}, made with "
        f"{row['calibration']:,} others; the ReLU network: {_percent(row['accuracy'])}"
    )
    if "accuracy_of_all" in row:
        text += f", of all {row['images'] + row['calibration']:,}: "
        text += _percent(row["accuracy_of_all"])
    return f"{text}."


def _method(row: Row) -> str:
    """The name of a preset, with its norm if that is not "neuron" and its first pass if it has one;
    or how the network was tuned."""
    if row["method"] != "tuned":
        norm, first = row.get("norm", "neuron"), row.get("first_pass")
        text = f"`{row['method']}`" + ("" if norm == "neuron" else f", norm `{norm}`")
        return text if first is None else f"{text}, T steps of {first.upper()} before"
    graded = row.get("max_spikes", 1)
    text = "tuned" if graded == 1 else f"tuned, up to {graded} spikes a step"
    return text if row.get("weights", True) else f"{text}, weights kept"


def _until_row(row: Row) -> tuple[str, ...]:
    asked = f"{100 * row['asked']:.1f} %"
    what = (row["network"], _method(row), row["agreeing_with"], asked)
    if "refused" in row:
        return *what, "refused", *("–",) * 5
    return (
        *what,
        f"{_percent(row['agreement'])} %",
        f"{row['mean_steps']:.2f}",
        str(row["fixed_steps"]),
        f"{_percent(row['fixed_agreement'])} %",
        ratio(row["mean_steps"] / row["fixed_steps"]),
        ratio(row["time_over_fixed"]),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"

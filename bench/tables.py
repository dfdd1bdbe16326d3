"""Makes the tables of a record, as Markdown."""

from collections.abc import Callable, Iterable, Sequence

from snm.bench.markdown import number, ratio, table
from snm.bench.record import Record, Row

COPY, READ, OURS = "copy_", "sum, a pure read", "snm, amplitude"
BY_EVENTS, DENSELY, CONVOLUTION = "snm, spike by spike", "snm, densely", "float32 convolution"
NOTHING = "Not measured.\n"
CONTIGUOUS = ", contiguous"
"""Ends the name of a contender that runs in torch's usual memory format."""


def op_table(record: Record) -> str:
    """T = 32, 2²⁰ neurons: every dtype and everything that can be sent, on each instruction set."""
    sections = []
    for isa in _values(record.of_suite("op"), "isa"):
        on = f", instruction set {isa}" if isa else ""
        for rows in _by_size(record.of_suite("op", isa=isa)):
            sections.append(f"{_size(rows[0])}{on}:\n\n{_op_rows(rows)}")
    return "\n".join(sections) or NOTHING


def usual_op(record: Record, **wanted: object) -> list[Row]:
    """The op's rows at its usual size, which is the one that is run first."""
    return next(iter(_by_size(record.of_suite("op", **wanted))), [])


def _by_size(rows: list[Row]) -> list[list[Row]]:
    sizes = dict.fromkeys((row["timesteps"], row["neurons"]) for row in rows)
    return [[row for row in rows if (row["timesteps"], row["neurons"]) == size] for size in sizes]


def _op_rows(rows: list[Row]) -> str:
    head = (
        *("contender", "dtype", "runs on", "ns per neuron-step", "bytes", "GB/s"),
        *("of `copy_` bandwidth", "of read bandwidth"),
    )
    cells = [
        (
            row["contender"],
            row["dtype"],
            row["backend"] or "–",
            number(nanoseconds(row)),
            number_of_bytes(row),
            number(bandwidth(row)),
            ratio(share(row, COPY, rows)),
            ratio(share(row, READ, rows)),
        )
        for row in rows
    ]
    return table(head, cells, words=3)


def rivals_table(record: Record) -> str:
    """The op and its rivals, float32, on a warm heap and on a cold one."""
    head = (
        *("contender", "runs on", "rule", "ns per neuron-step"),
        *("of `copy_` bandwidth", "time / snm"),
    )
    sections = []
    for heap in _values(record.of_suite("rivals"), "heap"):
        rows = record.of_suite("rivals", heap=heap)
        cells = [
            (
                row["contender"],
                row.get("implementation", "–"),
                row["rule"] or "–",
                number(nanoseconds(row)),
                ratio(share(row, COPY, rows)),
                ratio(times(row, OURS)),
            )
            for row in sorted(rows, key=lambda row: float(row["seconds"]))
        ]
        on = f", {heap} heap" if heap else ""
        sections.append(f"float32, {_size(rows[0])}{on}:\n\n{table(head, cells, words=3)}")
    return "\n".join(sections) or NOTHING


def sweep_table(record: Record) -> str:
    """float32 to amplitude: the share of the bandwidth that ``copy_`` has at the same size."""
    sections = []
    for backend in _values(record.of_suite("sweep"), "backend"):
        rows = record.of_suite("sweep", backend=backend)
        found = {(row["neurons"], row["timesteps"]): share(row, COPY, ()) for row in rows}
        steps = sorted({timesteps for _, timesteps in found})
        cells = [
            (f"{neurons:,}", *(ratio(found.get((neurons, t))) for t in steps))
            for neurons in sorted({neurons for neurons, _ in found})
        ]
        head = ("neurons", *(f"T = {t}" for t in steps))
        sections.append(f"Backend {backend}:\n\n{table(head, cells, words=0)}")
    return "\n".join(sections) or NOTHING


def layouts_table(record: Record) -> str:
    """Layouts, parameters and residuals, float32 to amplitude."""
    rows = record.of_suite("layouts")
    if not rows:
        return NOTHING
    plain = rows[0]["yardstick"]
    base = next((r["bytes_per_neuron_step"] for r in rows if r["contender"] == plain), None)
    cells = []
    for row in rows:
        beside = times(row, plain)
        per_byte = beside and base and beside * base / row["bytes_per_neuron_step"]
        cells.append(
            (
                row["contender"],
                number(nanoseconds(row)),
                number_of_bytes(row),
                ratio(beside),
                ratio(per_byte),
            )
        )
    head = ("layer", "ns per neuron-step", "bytes", "time / plain", "time per byte / plain")
    return f"{_size(rows[0])}:\n\n{table(head, cells, words=1)}"


def calls_table(record: Record) -> str:
    """Small work, and the first result of a fresh process."""
    calls, first = record.of_suite("calls"), record.of_suite("first call")
    small = [(row["contender"], number(1e6 * row["seconds"])) for row in calls]
    fresh = [(row["contender"], number(row["seconds"])) for row in first]
    sections = []
    if small:
        head = ("one neuron, one time step", "µs per call")
        sections.append(table(head, small, words=1))
    if fresh:
        head = ("first result of a fresh process, imports not counted, run once", "seconds")
        sections.append(table(head, fresh, words=1))
    return "\n".join(sections) or NOTHING


def network_table(record: Record) -> str:
    """Whole networks beside the ReLU network on as many images as there are time steps."""
    head = ("contender", "dtype", "ms per image", "time / ReLU network", "time / snm")
    sections = []
    for network in _values(record.of_suite("network"), "network"):
        rows = record.of_suite("network", network=network)
        cells = [
            (
                row["contender"],
                row["dtype"],
                number(1e3 * row["seconds"] / row["images"]),
                ratio(times(row, row["yardstick"])),
                ratio(times(row, "snm")),
            )
            for row in sorted(rows, key=lambda row: float(row["seconds"]))
        ]
        first = rows[0]
        size = f"{network}, batch {first['images']}, T = {first['timesteps']}"
        sections.append(f"{size}:\n\n{table(head, cells, words=2)}")
    return "\n".join(sections) or NOTHING


def chunks_table(record: Record) -> str:
    """Whole networks on a GPU, by how much memory a chunk of time steps may take."""
    head = ("contender", "chunk, MiB", "time steps", "ms per image", "time / largest chunk")
    sections = []
    for network in _values(record.of_suite("chunks"), "network"):
        rows = record.of_suite("chunks", network=network)
        cells = [
            (
                row["contender"],
                str(row["chunk_mebibytes"]),
                str(row["chunk_steps"]),
                number(1e3 * row["seconds"] / row["images"]),
                ratio(row["beside"].get(row["yardstick"], {"ratio": 1.0})["ratio"]),
            )
            for row in rows
        ]
        first = rows[0]
        size = f"{network}, {first['dtype']}, batch {first['images']}, T = {first['timesteps']}"
        sections.append(f"{size}:\n\n{table(head, cells, words=1)}")
    return "\n".join(sections) or NOTHING


def density_table(record: Record) -> str:
    """Layers of spikes with their neurons, by how many send, beside a convolution alone."""
    rows = record.of_suite("density")
    if not rows:
        return NOTHING
    ways = [str(way) for way in _values(rows, "contender")]
    cells = []
    for layer, density in dict.fromkeys((row["layer"], row["density"]) for row in rows):
        found = record.of_suite("density", layer=layer, density=density)
        taken = {row["contender"]: number(1e3 * row["seconds"]) for row in found}
        alone = number(1e3 * found[0]["beside"][CONVOLUTION]["seconds"])
        shown = (taken.get(way, "–") for way in ways)
        cells.append((layer, f"{100 * density:g}", *shown, alone))
    totals = []
    for layer in dict.fromkeys(row["layer"] for row in rows):
        by_way = {way: record.of_suite("density", layer=layer, contender=way) for way in ways}
        growths = (ratio(_growth(each)) for each in by_way.values())
        totals.append([layer, *growths])
        if DENSELY in ways:
            totals[-1].append(_faster_from(by_way[DENSELY]))
    first = rows[0]
    size = f"T = {first['timesteps']}, batch {first['images']}, ms"
    head = ("layer", "% send", *ways, f"{CONVOLUTION} alone")
    densities = [row["density"] for row in rows]
    span = f"time at {100 * max(densities):g} % / at {100 * min(densities):g} %"
    short = ["layer", *(f"{way}, {span}" for way in ways)]
    if DENSELY in ways:
        short.append("densely is faster from, % send")
    both = table(head, cells, words=1), table(short, totals, words=1)
    return f"{size}:\n\n{both[0]}\nTimes over that of the convolution beside them:\n\n{both[1]}"


def crossover(points: Sequence[tuple[float, float]]) -> float | None:
    """Where a ratio that depends on a density falls below 1 for good, between points on a line.

    Args:
        points: densities, growing, each with its ratio.

    Returns:
        The density; the first one if all ratios are below 1, None if the last is not.

    >>> crossover([(0.1, 2.0), (0.2, 1.5), (0.3, 0.5)]), crossover([(0.1, 2.0), (0.2, 1.0)])
    (0.25, None)
    """
    above = [i for i, (_, over) in enumerate(points) if over >= 1]
    if not above:
        return points[0][0] if points else None
    if above[-1] == len(points) - 1:
        return None
    (left, high), (right, low) = points[above[-1] : above[-1] + 2]
    return left + (right - left) * (high - 1) / (high - low)


def _faster_from(rows: Sequence[Row]) -> str:
    """From how many percent of neurons on that send a layer is faster densely."""
    ratios = [(row["density"], times(row, BY_EVENTS)) for row in rows]
    found = crossover([(density, over) for density, over in ratios if over is not None])
    if found is None:
        return "none"
    return f"{'≤ ' * (found == ratios[0][0])}{100 * found:.3g}"


def _growth(rows: Sequence[Row]) -> float | None:
    """A way's time at the highest density over that at the lowest; both by that of a convolution,
    which takes no notice of zeros."""
    found = [over for row in rows if (over := times(row, CONVOLUTION)) is not None]
    return found[-1] / found[0] if found else None


def short_op_table(record: Record) -> str:
    """The op and its rivals, float32, warm heap: a line each."""
    op = usual_op(record, isa=record.machine["isa"] if record.device == "cpu" else None)
    ours = [row for row in op if row["dtype"] == "float32"]
    heap = "warm" if record.device == "cpu" else None
    rivals = [row for row in record.of_suite("rivals", heap=heap) if row["rule"] and _is_rival(row)]
    if not ours:
        return NOTHING
    cells = [
        (
            " ".join((row["contender"], row.get("backend", ""))).strip(),
            number(nanoseconds(row)),
            ratio(share(row, COPY, op)),
            ratio(times(row, OURS) if row in rivals else None),
        )
        for row in (*ours, *sorted(rivals, key=lambda row: float(row["seconds"])))
    ]
    head = ("float32", "ns per neuron-step", "of `copy_` bandwidth", "time / snm")
    # On the CPU the compiled reference writes each step where it belongs.
    others, where = ("rivals but the reference", ", warm heap") if heap else ("rivals", "")
    note = f"snm and `copy_` write into a given tensor, {others} allocate what they return"
    return f"{_size(ours[0])}{where}; {note}:\n\n{table(head, cells, words=1)}"


def short_network_table(record: Record) -> str:
    """Whole networks: a line for each network and dtype, others in the faster memory format."""
    rows = record.of_suite("network")
    names = dict.fromkeys(row["contender"].removesuffix(CONTIGUOUS) for row in rows)
    rivals = [name for name in names if name != "snm" and not name.startswith("ReLU")]
    cells = []
    for ours in record.of_suite("network", contender="snm"):
        same = [
            row
            for row in rows
            if (row["network"], row["dtype"]) == (ours["network"], ours["dtype"])
        ]
        cells.append(
            (
                ours["network"],
                ours["dtype"],
                number(1e3 * ours["seconds"] / ours["images"]),
                ratio(_over_relu(ours, same)),
                *(ratio(_faster(name, same)) for name in rivals),
            )
        )
    if not cells:
        return NOTHING
    head = (
        *("network", "dtype", "snm, ms per image", "snm / ReLU network"),
        *(f"{name} / snm" for name in rivals),
    )
    return f"T = {rows[0]['timesteps']}:\n\n{table(head, cells, words=2)}"


def _faster(contender: str, rows: Iterable[Row]) -> float | None:
    """A contender's time over that of snm, in the memory format that suits the contender best."""
    formats = (contender, contender + CONTIGUOUS)
    found = (times(row, "snm") for row in rows if row["contender"] in formats)
    return min(filter(None, found), default=None)


def _over_relu(ours: Row, rows: Iterable[Row]) -> float | None:
    """The time of snm over that of the ReLU network, in the memory format that suits the latter."""
    # The yardstick itself runs beside nothing: snm ran beside it.
    other = _faster(ours["yardstick"] + CONTIGUOUS, rows)
    found = (times(ours, ours["yardstick"]), other and 1 / other)
    return max(filter(None, found), default=None)


def _is_rival(row: Row) -> bool:
    return not row["contender"].startswith(("snm", COPY, "clone"))


TABLES: dict[str, Callable[[Record], str]] = {
    "op": op_table,
    "rivals": rivals_table,
    "sweep": sweep_table,
    "layouts": layouts_table,
    "calls": calls_table,
    "network": network_table,
    "chunks": chunks_table,
    "density": density_table,
    "short-op": short_op_table,
    "short-network": short_network_table,
}
"""What makes each table, by the name that pages and suites have for it."""

LONG = ("op", "sweep", "rivals", "network", "chunks", "density", "layouts", "calls")


def every_table(record: Record) -> str:
    """The page with all tables that ``snm bench`` writes beside a record."""
    sections = [f"{TABLES[name].__doc__}\n\n{TABLES[name](record)}" for name in LONG]
    not_run = "".join(f"- not run: {reason}\n" for reason in record.skipped)
    return "\n".join((f"{record.heading()}\n", *sections, not_run))


def nanoseconds(row: Row) -> float:
    """A row's time per neuron and step in nanoseconds, as text."""
    return 1e9 * float(row["seconds"]) / (int(row["neurons"]) * int(row["timesteps"]))


def bandwidth(row: Row) -> float:
    """A row's bandwidth in GB/s, as text."""
    return float(row["bytes_per_neuron_step"]) / nanoseconds(row)


def number_of_bytes(row: Row) -> str:
    return f"{row['bytes_per_neuron_step']:.3g}"


def times(row: Row, other: str) -> float | None:
    """A row's time over that of another contender that ran in turn with it, as text."""
    if row["contender"] == other:
        return 1.0
    beside = row["beside"].get(other)
    return None if beside is None else float(beside["ratio"])


def share(row: Row, other: str, rows: Iterable[Row]) -> float | None:
    """A row's bandwidth over that of a yardstick that ran in turn with it.

    Args:
        row: the row of a contender.
        other: the name of the yardstick.
        rows: rows with the yardstick's own among them, if that moves other bytes than this
            contender.
    """
    beside = times(row, other)
    if beside is None:
        return None
    own = row["bytes_per_neuron_step"]
    others = (r for r in rows if (r["contender"], r["dtype"]) == (other, row["dtype"]))
    yardstick = next(others, row)
    return float(own / yardstick["bytes_per_neuron_step"] / beside)


def _values(rows: Iterable[Row], name: str) -> list[str | None]:
    """All different values that rows have in a field, in order."""
    return [*dict.fromkeys(row.get(name) for row in rows)]


def _size(row: Row) -> str:
    return f"T = {row['timesteps']}, {row['neurons']:,} neurons"

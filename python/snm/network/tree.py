"""Shows a ReLU network and its spiking network side by side."""

from collections.abc import Iterable

from torch import nn

from ..nn import SNMNeuron

Origin = tuple[tuple[str, str], ...]
"""The path and the description of each layer of a ReLU network."""

_WIDTH = 43
"""The most characters that the description of a layer takes."""


def origin_of(model: nn.Module) -> Origin:
    """The layers of a model, which are its modules that hold no others."""
    return tuple(
        (path, _described(module))
        for path, module in model.named_modules()
        if next(module.children(), None) is None
    )


def tree(origin: Origin, model: nn.Module, pools: Iterable[str], events: Iterable[str] = ()) -> str:
    """A table with a line per layer: its path, and what it is in each of the networks.

    Args:
        origin: the layers of the ReLU network.
        model: the modules that the spiking network's program calls.
        pools: paths of the max poolings that became running maxima.
        events: paths of the layers that are computed spike by spike.
    """
    neurons = {path: m for path, m in model.named_modules() if isinstance(m, SNMNeuron)}
    own = dict(model.named_modules())
    running, by_events = set(pools), set(events)
    rows = [("", "ReLU network", "spiking network")]
    for path, before in _with_calls(origin, neurons):
        if path in neurons:
            after = _neurons(neurons[path])
        elif path in running:
            after = "running maximum"
        elif path in own:
            after = _described(own[path])
        else:
            after = "-"
        shown = "kept" if after == before else after
        rows.append((path, before, f"{shown}, by events" if path in by_events else shown))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows)


def _with_calls(origin: Origin, neurons: Iterable[str]) -> list[tuple[str, str]]:
    """The layers, with each ReLU that is not a module behind the layers of the module it is in."""
    rows = list(origin)
    for path in neurons:
        paths = [row[0] for row in rows]
        if path in paths:
            continue
        parent = path.rpartition(".")[0]
        inside = [n for n, other in enumerate(paths) if other.rpartition(".")[0] == parent]
        rows.insert(inside[-1] + 1 if inside else len(rows), (path, "a call of ReLU"))
    return rows


def _neurons(neuron: SNMNeuron) -> str:
    """Describes a layer of neurons by its thresholds."""
    threshold = neuron.threshold
    silent = int(neuron.silent.sum())
    size = "×".join(map(str, threshold.shape)) or "one"
    plural = "" if threshold.numel() == 1 else "s"
    return f"SNM, {size} threshold{plural}" + (f", {silent} silent" if silent else "")


def _described(module: nn.Module) -> str:
    """A module as torch prints it, on one line of bounded length."""
    text = f"{module._get_name()}({module.extra_repr()})".replace("\n", " ")
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."

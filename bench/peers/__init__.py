"""The rivals: what each needs, which rule it runs, and how to build it.

A module of this package holds one rival as a class ``Peer(inputs, compiled)``. Called, it runs all
time steps from a fresh state and returns the amplitudes ``[T, ...]``, or a list of T of them;
``implementation`` says, after a call, what it ran on.
"""

import importlib
import importlib.util
from typing import Any, NamedTuple

from snm.bench.workload import Inputs, at_one_threshold
from snm_kernels import SNMRule, preset

_SPIKINGJELLY = ("spikingjelly", "loguru")
"""The packages that SpikingJelly's neurons need."""
_COMPILER = ("torch._dynamo", "torch._inductor.compile_fx")
"""What ``torch.compile`` imports when it is first called."""


def missing(*packages: str) -> str:
    """Which packages are not installed, in words; empty if all are."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed: pip install 'snm-kernels[bench]'" if absent else ""


class Entry(NamedTuple):
    """A rival as the suites list it."""

    module: str
    """The name of its module in this package."""
    rule: SNMRule
    """The rule that it runs, for comparison with snm_kernels."""
    rule_name: str
    """The name of that rule."""
    per_neuron: bool
    """Whether it takes a threshold per neuron; if not, θ = 1."""
    compiled: bool = False
    """Whether ``torch.compile`` is put around it."""
    needs: tuple[str, ...] = _SPIKINGJELLY

    def inputs(self, inputs: Inputs) -> Inputs:
        """The workload's inputs as this rival can take them."""
        return inputs if self.per_neuron else at_one_threshold(inputs)

    def missing(self) -> str:
        """Why it can't run here, in words; empty if it can."""
        return missing(*self.needs)

    def load(self) -> Any:
        """Imports its module, and the compiler if it is compiled; returns the module."""
        if self.compiled:
            for name in _COMPILER:
                importlib.import_module(name)
        return importlib.import_module(f"snm.bench.peers.{self.module}")

    def build(self, inputs: Inputs) -> Any:
        """A ``Peer`` that is ready to be called on these inputs."""
        return self.load().Peer(inputs, self.compiled)


ST_BIF_LEVELS = 16
"""How many values ST-BIF's count of spikes can take: 0 to 15."""

_SNM, _IF, _ST_BIF = preset("snm"), preset("if"), preset("st-bif", levels=ST_BIF_LEVELS - 1)

PEERS = {
    "published step code": Entry("published", _SNM, "snm", True, needs=()),
    "reference, compiled": Entry("reference", _SNM, "snm", True, compiled=True, needs=()),
    "SpikingJelly FlexSN": Entry("flexsn", _SNM, "snm", True),
    "SpikingJelly FlexSN, compiled": Entry("flexsn", _SNM, "snm", True, compiled=True),
    "SpikingJelly IFNode": Entry("spikingjelly_if", _IF, "if", False),
    "SpikingJelly IFNode, compiled": Entry("spikingjelly_if", _IF, "if", False, compiled=True),
    "SpikingJelly STBIFNode": Entry("st_bif", _ST_BIF, "st-bif", False),
}

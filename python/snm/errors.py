"""The errors and warnings of conversion."""

from collections.abc import Iterable
from typing import NamedTuple


class Offence(NamedTuple):
    """One operation of a model that has no spiking counterpart."""

    path: str
    """Path of the module in which the operation happens; empty for the model itself."""
    operation: str
    """The operation's name: a module's class, or the name of a function or method."""
    reason: str
    """Why the operation is refused, and what can be done instead, if anything."""
    line: str = ""
    """File and line of the operation, such as ``resnet.py:102``; empty if that is not known."""

    def __str__(self) -> str:
        where = f" ({self.line})" if self.line else ""
        return f"{self.path or 'the model'}: {self.operation}{where}: {self.reason}"


class ConversionError(ValueError):
    """Says that a model cannot become a spiking network, and names everything that prevents it.

    Args:
        offences: all operations that are refused.
        caller: the function that refuses them.
        verb: what they cannot be.

    >>> reason = "only ReLU has a spiking neuron"
    >>> print(ConversionError([Offence("features.3", "gelu", reason, "vgg.py:40")]))
    convert: 1 operation cannot be converted:
      features.3: gelu (vgg.py:40): only ReLU has a spiking neuron
    """

    offences: tuple[Offence, ...]
    """All operations that are refused, in order of execution."""

    def __init__(
        self, offences: Iterable[Offence], caller: str = "convert", verb: str = "converted"
    ) -> None:
        self.offences = tuple(offences)
        self._head = caller, verb
        super().__init__(self.offences, caller, verb)

    def __str__(self) -> str:
        count = len(self.offences)
        caller, verb = self._head
        head = f"{caller}: {count} operation{'' if count == 1 else 's'} cannot be {verb}:"
        return "\n  ".join([head, *map(str, self.offences)])


def refuse(offences: Iterable[Offence], caller: str = "convert", verb: str = "converted") -> None:
    """Stops a conversion if any operation is refused.

    Args:
        offences: all operations that are refused.
        caller: the function that refuses them.
        verb: what they cannot be.

    Raises:
        ConversionError: there is at least one; the error names each.

    >>> refuse([])
    """
    found = tuple(offences)
    if found:
        raise ConversionError(found, caller, verb)


class DeadNeuronWarning(UserWarning):
    """Warns that some neurons never fired in calibration, and says what becomes of them."""

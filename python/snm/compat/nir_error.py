"""The error of networks that NIR cannot express, and of graphs that no network here expresses."""

from ..errors import ConversionError


class GraphError(ConversionError):
    """A network has no form in NIR, or a graph none here; names everything that stands in the way.

    >>> from snm import Offence
    >>> print(GraphError([Offence("mix", "cat", "NIR has no concatenation")]))
    nir: 1 operation cannot be expressed:
      mix: cat: NIR has no concatenation
    """

    def __str__(self) -> str:
        count = len(self.offences)
        head = f"nir: {count} operation{'' if count == 1 else 's'} cannot be expressed:"
        return "\n  ".join([head, *map(str, self.offences)])

"""What is raised where a network has no form in NIR, or a graph none here."""

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


class Refusal(Exception):
    """Why an operation of a network has no form in NIR, or a node of a graph none here."""

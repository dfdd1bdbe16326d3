"""Numbers as a reader wants them: three digits, a prefix, a unit."""

import math

NONE = "–"
"""What stands in the place of a number that nobody measured."""
_PREFIXES = ["p", "n", "µ", "m", "", "k", "M", "G", "T", "P"]
_UNITY = _PREFIXES.index("")
_SPACE = "\N{NARROW NO-BREAK SPACE}"


def digits(value: float, most: int = 3) -> str:
    """A number to so many digits, without a power of ten if it is neither huge nor tiny.

    >>> digits(0.012345), digits(123.4), digits(0), digits(math.nan)
    ('0.0123', '123', '0', '–')
    """
    if math.isnan(value):
        return NONE
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    decimals = most - 1 - math.floor(math.log10(abs(value)))
    if decimals > most + 3:
        return f"{value:.{most - 1}e}"
    rounded = round(value, decimals)
    return f"{rounded:,.{max(0, decimals)}f}"


def quantity(value: float, unit: str = "") -> str:
    """A number to three digits with the prefix that suits it.

    >>> quantity(1.2345e-6, "J"), quantity(12_345_678), quantity(87)
    ('1.23\u202fµJ', '12.3\u202fM', '87')
    """
    if math.isnan(value):
        return NONE
    scaled, prefix = _prefixed(float(value), -_UNITY if unit else 0)
    whole = not prefix and scaled.is_integer()
    number = f"{scaled:.0f}" if whole else digits(scaled)
    return f"{number}{_SPACE}{prefix}{unit}".rstrip(_SPACE)


def round_number(value: float) -> str:
    """A round number as the label of a tick.

    >>> round_number(-0.1), round_number(20)
    ('−0.1', '20')
    """
    return f"{value:g}".replace("-", "−")


def round_quantity(value: float) -> str:
    """A round number with the prefix that suits it.

    >>> round_quantity(2_000_000), round_quantity(0.5)
    ('2\u202fM', '0.5')
    """
    scaled, prefix = _prefixed(value, 0)
    return f"{scaled:g}{_SPACE}{prefix}".rstrip(_SPACE)


def _prefixed(value: float, least: int) -> tuple[float, str]:
    """A number in thousands, millions and so on, and the prefix that says so.

    ``least`` is the lowest power of a thousand there may be: 0, or below 0 for thousandths.
    """
    if value == 0 or not math.isfinite(value):
        return value, ""
    # 999.9 is 1,000 to three digits.
    thousands = math.floor(math.log10(float(f"{abs(value):.2e}")) / 3)
    thousands = min(max(thousands, least), len(_PREFIXES) - 1 - _UNITY)
    return value / 1000.0**thousands, _PREFIXES[_UNITY + thousands]


def percent(share: float, decimals: int = 2) -> str:
    """A share in percent.

    >>> percent(0.9295), percent(math.nan)
    ('92.95\u202f%', '–')
    """
    return NONE if math.isnan(share) else f"{100 * share:.{decimals}f}{_SPACE}%"


def memory(size: float) -> str:
    """A number of bytes to three digits, in the unit that suits it.

    >>> memory(88_080_384), memory(512)
    ('84.0\u202fMiB', '512\u202fB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f}{_SPACE}B" if unit == "B" else f"{digits(size)}{_SPACE}{unit}"


def hundredths(value: float, plus: str = "+") -> str:
    """A number to a hundredth, with a true minus.

    >>> hundredths(0.5), hundredths(-0.5, "")
    ('+0.50', '−0.50')
    """
    return NONE if math.isnan(value) else f"{value:{plus}.2f}".replace("-", "−")

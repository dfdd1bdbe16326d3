"""Reads the report that a page holds."""

from html.parser import HTMLParser

from ..output import Report


def read(html: str) -> Report:
    """The report that a page was made of.

    Args:
        html: what :func:`snm.reports.page.page` returned.

    Raises:
        ValueError: the text is not such a page.
    """
    reader = _Reader()
    reader.feed(html)
    if not reader.found:
        raise ValueError("read: html must be a page of a report, got none")
    return Report.from_json("".join(reader.found))


class _Reader(HTMLParser):
    """Collects the text of the script element whose id is ``report``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script" and ("id", "report") in attrs

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found.append(data)

    def handle_endtag(self, _: str) -> None:
        self._inside = False

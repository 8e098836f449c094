"""The parts of a table: rows of cells that are markup already, under headings.

A heading's first character says how its column is set: "#" numbers, "~" dotted names that may be
long and broken, "=" single words that are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tolaria.show.lives import Gain
from tolaria.show.phrases import gain_words
from tolaria.show.report.svg import escape

_CLASSES: Final = {"#": "num", "~": "name", "=": "word"}


def table(heads: Sequence[str], rows: Iterable[str], css: str = "cards") -> str:
    """A table that is scrolled sideways where it is too wide; `css` names its class."""
    body = f"{head_row(heads)}<tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="{css}">{body}</table></div>'


def head_row(heads: Sequence[str]) -> str:
    """The row of headings."""
    return f"<thead><tr>{''.join(_cell('th', head, _bare(head)) for head in heads)}</tr></thead>"


def row(heads: Sequence[str], cells: Sequence[str], css: str = "") -> str:
    """A row; each cell carries its heading, which stands before it on a narrow page."""
    pairs = zip(heads, cells, strict=True)
    inner = "".join(_cell("td", head, cell, f' data-of="{_bare(head)}"') for head, cell in pairs)
    return f'<tr class="{css}">{inner}</tr>' if css else f"<tr>{inner}</tr>"


def measured(gain: Gain) -> str:
    """A gain in markup."""
    return prose(gain_words(gain))


def prose(text: str) -> str:
    """A sentence in markup, with the sign for an error where it has "+-"."""
    return escape(text).replace("+-", "&#177;")


def _bare(head: str) -> str:
    return head.lstrip("".join(_CLASSES))


def _cell(tag: str, head: str, content: str, attributes: str = "") -> str:
    css = _CLASSES.get(head[:1])
    of_class = f' class="{css}"' if css else ""
    return f"<{tag}{of_class}{attributes}>{content}</{tag}>"

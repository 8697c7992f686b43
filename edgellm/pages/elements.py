"""HTML of a page's parts. Texts are escaped here; what is called HTML is taken as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def section(title: str, *parts: str, note: str = "") -> str:
    """Return a section: its title, a sentence in plain words, and the HTML of its parts."""
    paragraph = note and f"<p>{escape(note, quote=False)}</p>"
    return f"<h2>{escape(title, quote=False)}</h2>{paragraph}{''.join(parts)}"


def panels(parts: Iterable[str], *, narrow: bool = False) -> str:
    """Return the HTML of parts side by side where the page is wide enough.

    Args:
        parts: their HTML.
        narrow: whether a part needs little room, so that more of them are side by side.
    """
    kind = "panels narrow" if narrow else "panels"
    return f'<div class="{kind}">{"".join(parts)}</div>'


def panel(heading: str, *parts: str) -> str:
    """Return a panel: a heading above the HTML of its parts."""
    return f"<section><h3>{escape(heading)}</h3>{''.join(parts)}</section>"


def details(summary: str, body: str) -> str:
    """Return HTML that is folded away behind a line of text."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def sentence(text: str) -> str:
    """Return a paragraph of one sentence."""
    return f"<p>{escape(text)}</p>"


def soft(text: str) -> str:
    """Return a paragraph of what is said besides; nothing of no text."""
    if not text:
        return ""
    return f'<p class="soft">{escape(text)}</p>'


def quotation(text: str) -> str:
    """Return a text with its own lines and blanks, as it was given to a model."""
    return f'<div class="said">{escape(text)}</div>'


def bullets(sentences: Iterable[str]) -> str:
    """Return a list of sentences; nothing of none."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    if not items:
        return ""
    return f'<ul class="sentences">{items}</ul>'


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names, each with what stands behind it."""
    items = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
    return f"<dl>{''.join(items)}</dl>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, prose: Sequence[str] = ()) -> str:
    """Return a table of texts, which scrolls by itself where the page is narrow.

    Args:
        heads: of the columns.
        rows: a text for each column.
        prose: the columns whose long texts are broken into lines.
    """
    prose_class = dict.fromkeys(prose, ' class="long"')
    classes = [prose_class.get(name, "") for name in heads]

    def cells(opening: str, closing: str, texts: Sequence[str]) -> str:
        pairs = zip(classes, texts, strict=True)
        return "".join(f"<{opening}{kind}>{escape(text)}</{closing}>" for kind, text in pairs)

    head = cells('th scope="col"', "th", heads)
    body = "".join(f"<tr>{cells('td', 'td', row)}</tr>" for row in rows)
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )

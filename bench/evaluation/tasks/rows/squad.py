"""SQuAD as it is published: one object of articles, paragraphs and their questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def is_squad(fields: Mapping[str, Any]) -> bool:
    """Say whether an object is a whole file of SQuAD."""
    articles = fields.get("data")
    return isinstance(articles, list) and all(
        isinstance(article, Mapping) and isinstance(article.get("paragraphs"), list)
        for article in articles
    )


def squad_rows(fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each question of such a file as a row with its paragraph."""
    for article in fields["data"]:
        for paragraph in article["paragraphs"]:
            if isinstance(paragraph, Mapping) and isinstance(paragraph.get("qas"), list):
                for question in paragraph["qas"]:
                    if isinstance(question, Mapping):
                        yield {**question, "context": paragraph.get("context")}

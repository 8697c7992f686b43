"""The kinds that there are, and which of them a row is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.bench.evaluation.tasks.kinds.answer import Answer
from edgellm.bench.evaluation.tasks.kinds.choose import Choose
from edgellm.bench.evaluation.tasks.kinds.classify import Classify
from edgellm.bench.evaluation.tasks.kinds.continuation import Continue
from edgellm.bench.evaluation.tasks.kinds.entities import Entities
from edgellm.bench.evaluation.tasks.kinds.kind import Kind
from edgellm.bench.evaluation.tasks.kinds.nli import Nli
from edgellm.bench.evaluation.tasks.kinds.rewriting import Summarize, Translate
from edgellm.bench.evaluation.tasks.kinds.text import Text

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Classify(),
        Choose(),
        Nli(),
        Answer(),
        Summarize(),
        Translate(),
        Continue(),
        Entities(),
        Text(),
    )
}


def kinds_of(fields: Mapping[str, Any]) -> list[Kind]:
    """Return the kinds that a row may be of."""
    return [kind for kind in KINDS.values() if kind.form_of(fields) is not None]


def forms_by_kind() -> str:
    """Return the fields of each kind, for a message."""
    return "; ".join(f"{name}: {kind.forms[0].described()}" for name, kind in KINDS.items())

"""Texts in other words: summaries and translations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from edgellm.bench.evaluation.tasks.kinds.kind import Kind, Way, ask, generated
from edgellm.bench.evaluation.tasks.rows.forms import Form, Parts, text_of, texts_of
from edgellm.bench.evaluation.tasks.rows.languages import LANGUAGES, language_code, language_name
from edgellm.bench.evaluation.tasks.rows.question import Outcome, Question
from edgellm.bench.metrics.summaries import summary_columns
from edgellm.bench.metrics.translations import translation_columns, translation_signatures
from edgellm.errors import ConfigError
from edgellm.row_files.problems import BadRow
from edgellm.row_files.reading import Row

FROM = ("src", "src_lang", "source_lang", "source_language")
TO = ("tgt", "tgt_lang", "target_lang", "target_language")

SUMMARY = "{{ document }}\nSummary:"

REFERENCES = ("reference", "references", "target", "targets")


class Summarize(Kind):
    """Summaries of a document."""

    name = "summarize"
    way: ClassVar[Way] = "generated"
    forms: ClassVar[tuple[Form, ...]] = (
        Form(
            needs={
                "document": ("document", "article", "dialogue", "text", "content", "source"),
                "summary": ("summary", "summaries", "highlights", "tldr"),
            },
            right=("summary",),
            template=SUMMARY,
        ),
        Form(
            needs={"document": ("source",), "summary": REFERENCES},
            right=("summary",),
            lacks=(*FROM, *TO),
            template=SUMMARY,
        ),
    )
    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "chrf")
    stops: ClassVar[tuple[str, ...]] = ("\n",)
    max_tokens = 160

    def question(self, row: Row, form: Form, parts: Parts, labels: tuple[str, ...]) -> Question:
        """Return a document with the summaries that it has."""
        sentences = texts_of(parts["document"], "document")
        summaries = texts_of(parts["summary"], "summary")
        if not sentences or not summaries:
            empty = "summary" if sentences else "document"
            raise BadRow(f"{empty} is empty", hint=f"give {empty} a text, or drop the row")
        document = " ".join(sentences)
        return ask(
            row,
            form,
            shown={"document": document},
            about=[document],
            target=summaries[0],
            answers=summaries,
        )

    def instruction(self, form: Form, labels: tuple[str, ...], *, chat: bool) -> str:
        """Return for a chat that a summary is short."""
        if not chat:
            return ""
        return "Summarize each text in one or two sentences. Answer with the summary alone."

    def columns(self, question: Question, outcome: Outcome) -> dict[str, float]:
        """Return the columns of a summary: ROUGE-L, and those of chrF."""
        answer = generated(outcome)
        characters = {
            name: value
            for name, value in translation_columns(answer, question.answers).items()
            if name.startswith("chrf_")
        }
        return {**summary_columns(answer, question.answers), **characters}

    def signatures(self, questions: Sequence[Question]) -> dict[str, str]:
        """Return sacrebleu's signature of chrF."""
        counts = {len(question.answers) for question in questions}
        return {"chrf": translation_signatures(references=counts)["chrf"]}


class LanguageFields(Form):
    """Rows with two fields that are named by their language, such as ``en`` and ``de``."""

    def is_complete(self, fields: Mapping[str, Any]) -> bool:
        """Say whether two fields are named by a language, and hold texts."""
        return len(self.pair(fields)) == 2

    def recognises(self, fields: Mapping[str, Any]) -> bool:
        """Say the same."""
        return self.is_complete(fields)

    def read(
        self, fields: Mapping[str, Any], like: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the two texts by language, as the part ``translation``."""
        pair = self.pair(fields)
        if len(pair) != 2:
            raise BadRow(
                f"{len(pair)} fields are named by a language; it must be two",
                hint='write the row as {"source": ..., "reference": ...}',
            )
        return {"translation": pair}

    def pair(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """Return the texts whose fields are named by a language, by its code."""
        named = {
            language_code(name.removeprefix("sentence_")): text
            for name, text in fields.items()
            if name != "id" and isinstance(text, str)
        }
        return {code: text for code, text in named.items() if code in LANGUAGES}


def _is_pair(parts: Parts) -> bool:
    return isinstance(parts["translation"], Mapping) and len(parts["translation"]) == 2


def _by_language(parts: Parts) -> dict[str, Any]:
    """Return the texts of a row by the codes of their languages; none where it has no pair."""
    if not _is_pair(parts):
        return {}
    return {language_code(name): text for name, text in parts["translation"].items()}


def _is_one_text(parts: Parts) -> bool:
    """Say whether a row can be a translation: lists of texts without languages are summaries."""
    if not isinstance(parts["source"], str):
        return False
    return parts["to"] is not None or isinstance(parts["reference"], str)


TRANSLATION = (
    "{% if to %}{{ from }}: {{ source }}\n{{ to }}:"
    "{% else %}Text: {{ source }}\nTranslation:{% endif %}"
)


class Translate(Kind):
    """Translations into another language."""

    name = "translate"
    way: ClassVar[Way] = "generated"
    forms: ClassVar[tuple[Form, ...]] = (
        Form(
            needs={"source": ("source",), "reference": REFERENCES},
            may={"from": FROM, "to": TO},
            right=("reference",),
            lacks=("summary", "summaries", "highlights"),
            fits=_is_one_text,
            template=TRANSLATION,
        ),
        Form(
            needs={"translation": ("translation",)},
            right=("translation",),
            fits=_is_pair,
            template=TRANSLATION,
        ),
        LanguageFields(needs={}, right=("translation",), template=TRANSLATION),
    )
    metrics: ClassVar[tuple[str, ...]] = ("chrf", "bleu")
    stops: ClassVar[tuple[str, ...]] = ("\n",)
    max_tokens = 160
    takes_labels = True

    def labels(
        self, form: Form, rows: Sequence[Parts], given: tuple[str, ...] | None
    ) -> tuple[str, ...]:
        """Return the languages from which and into which all rows are translated."""
        if given is not None and len(given) != 2:
            raise ConfigError(
                f"{len(given)} languages are given; it must be two: from and to",
                hint="write --labels en,de",
            )
        if given is not None:
            return tuple(language_code(name) for name in given)
        if "source" not in form.needs and rows:
            return tuple(_by_language(rows[0]))
        return ()

    def question(self, row: Row, form: Form, parts: Parts, labels: tuple[str, ...]) -> Question:
        """Return a text with its translations."""
        if "source" in form.needs:
            source = text_of(parts, "source")
            references = texts_of(parts["reference"], "reference")
            languages = tuple(
                language_code(str(parts[role])) for role in ("from", "to") if parts[role]
            )
        else:
            texts = _by_language(parts)
            if len(labels) != 2 or set(labels) != set(texts):
                raise BadRow(
                    f"the languages are {' and '.join(texts) or 'none'}, not "
                    f"{' and '.join(labels) or 'two'}",
                    hint='write {"en": "...", "de": "..."}, in each row with the same languages',
                )
            source = text_of(texts, labels[0])
            references = texts_of(texts[labels[1]], labels[1])
            languages = ()
        if not references:
            raise BadRow("the reference is empty", hint="give it a text, or drop the row")
        languages = labels or languages
        shown: dict[str, Any] = {"source": source, "from": None, "to": None, "language": ""}
        if len(languages) == 2:
            shown["from"], shown["to"] = map(language_name, languages)
            shown["language"] = languages[1]
        return ask(row, form, shown=shown, about=[source], target=references[0], answers=references)

    def instruction(self, form: Form, labels: tuple[str, ...], *, chat: bool) -> str:
        """Return for a chat that the translation is all that is wanted."""
        if not chat:
            return ""
        return "Translate each text. Answer with the translation alone."

    def columns(self, question: Question, outcome: Outcome) -> dict[str, float]:
        """Return sacrebleu's statistics of a translation."""
        language = str(question.shown["language"])
        return translation_columns(generated(outcome), question.answers, language=language)

    def signatures(self, questions: Sequence[Question]) -> dict[str, str]:
        """Return sacrebleu's signatures; several of BLEU where languages are read differently."""
        found: dict[str, dict[str, None]] = {}
        for language in sorted({str(question.shown["language"]) for question in questions}):
            counts = {
                len(question.answers)
                for question in questions
                if question.shown["language"] == language
            }
            signatures = translation_signatures(language=language, references=counts)
            for name, signature in signatures.items():
                found.setdefault(name, {})[signature] = None
        return {name: ", ".join(signatures) for name, signatures in found.items()}

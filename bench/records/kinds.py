"""Records of disks, paging, ablations, questions, parity; the record that a JSON object is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import ClassVar

from edgellm.bench.records.backend_names import current_name
from edgellm.bench.records.doubts import Doubt, doubt_efficiency, doubt_spread
from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.records.fields import (
    Bits,
    Count,
    Distance,
    FieldError,
    Fraction,
    Perplexity,
    Rate,
    Score,
    Seconds,
    in_words,
)
from edgellm.bench.records.record import (
    Record,
    SpeedRecord,
    field_types,
    median,
    quotient,
)
from edgellm.bench.records.serving import ServingRecord
from edgellm.bench.records.training import TrainingRecord
from edgellm.files.strict_json import quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRecord(Record):
    """Plain reads of files.

    Attributes:
        chunk_bytes: bytes of one read.
        read_bytes: bytes of one repetition.
        direct_reads: whether they went past the page cache.
    """

    KIND: ClassVar[str] = "disk"

    chunk_bytes: Count
    read_bytes: Count
    direct_reads: bool

    DERIVED: ClassVar[tuple[str, ...]] = ("raw_read_gbps",)

    @property
    def raw_read_gbps(self) -> float | None:
        """GB read per second, in the median repetition."""
        return quotient(quotient(self.read_bytes, self.median_seconds), 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class PagingRecord(Record):
    """Tokens of a model inside a budget of memory.

    Attributes:
        layers: of the model.
        pinned_layers: those that stayed in memory.
        bytes_per_token: read from disk per token.
        raw_gbps: GB per second of plain reads of the same files, before and after each repetition:
            one more than those.
        resident_seconds: seconds per token if all weights were in memory.
        load_seconds: until the first token could begin.
        direct_reads: whether reads went past the page cache.
        cap_bytes: what the system held the process to; None: nothing.
    """

    KIND: ClassVar[str] = "paging"

    layers: Count | None = None
    pinned_layers: Count | None = None
    bytes_per_token: Count | None = None
    raw_gbps: tuple[Rate, ...] = ()
    resident_seconds: Seconds | None = None
    load_seconds: Seconds | None = None
    direct_reads: bool | None = None
    cap_bytes: Count | None = None

    DERIVED: ClassVar[tuple[str, ...]] = (
        *Record.DERIVED,
        "raw_read_gbps",
        "seconds_per_token",
        "efficiency",
        "peak_rss_bytes",
        "spread",
        "warnings",
    )

    @property
    def raw_read_gbps(self) -> float | None:
        """GB per second of plain reads, the median."""
        return median(self.raw_gbps)

    @property
    def efficiency(self) -> float | None:
        """Physical limit of a repetition over its measured time: 1 is the limit.

        The limit is ``max(missed bytes / raw disk rate, resident step time)``. Each repetition is
        compared with the plain reads just before and just after it, since disks wander; the
        median.
        """
        if self.resident_seconds is None or self.bytes_per_token is None:
            return None
        fractions = []
        for number, seconds in enumerate(self.seconds):
            if not seconds:  # too short to time
                continue
            limit = self.resident_seconds
            around = self.raw_gbps[number : number + 2]
            if around:
                limit = max(limit, self.bytes_per_token / (statistics.mean(around) * 1e9))
            fractions.append(limit * self.tokens / seconds)
        return median(fractions)

    @property
    def roofline_share(self) -> float | None:
        """Same as ``efficiency``."""
        return self.efficiency

    @property
    def doubts(self) -> list[Doubt]:
        """The reasons to doubt its figures."""
        return [*doubt_spread(self.spread), *doubt_efficiency(self.efficiency)]

    @property
    def peak_rss_bytes(self) -> int | None:
        """Most bytes that the process held."""
        return self.peak_memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationRecord(Record):
    """A model with one part left out.

    Attributes:
        variant: the ablation in words.
        without: the part that is left out; None: nothing.
        whole_seconds: seconds of the median repetition with all parts.
        prompt_tokens: that came before.
        pinned_layers: those that stayed in memory.
        layers: of the model.
        bytes_per_token: read from disk per token.
    """

    KIND: ClassVar[str] = "ablation"
    DERIVED: ClassVar[tuple[str, ...]] = (*Record.DERIVED, "seconds_per_token", "slowdown")

    variant: str = ""
    without: str | None = None
    whole_seconds: Seconds | None = None
    prompt_tokens: Count = 0
    pinned_layers: Count | None = None
    layers: Count | None = None
    bytes_per_token: Count | None = None

    @property
    def slowdown(self) -> float | None:
        """How many times as long it takes without the part."""
        return quotient(self.median_seconds, self.whole_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRecord(Record):
    """One question to one model; ``seconds`` last from the question to the answer's last token.

    Attributes:
        number: the number of the question, from 1.
        question: as it was asked.
        answer: the text that the model gave.
        finish_reason: ``stop``, or ``length`` where ``--max-tokens`` cut it off.
        prompt_tokens: of the question, the template's own among them.
        first_token_seconds: seconds of each repetition.
        model_bytes: bytes of the model's weights.
        score: from 1 to 10, once somebody has rated the answer.
        scored_by: ``person``, or the judge's name.
    """

    number: Count = 0
    question: str = ""
    answer: str | None = None
    finish_reason: str | None = None
    prompt_tokens: Count | None = None
    first_token_seconds: tuple[Seconds, ...] = ()
    model_bytes: Count | None = None
    score: Score | None = None
    scored_by: str | None = None

    KIND: ClassVar[str] = "queries"
    DERIVED: ClassVar[tuple[str, ...]] = (*Record.DERIVED, "median_seconds", "seconds_per_token")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityRecord(Record):
    """How one model in one backend differs from the reference; ``tokens`` were compared.

    Attributes:
        arithmetic: the code path that ran.
        reference_model: the model that it is compared with.
        reference_backend: the one that the reference ran in.
        reference_bits: of its weights.
        reference_arithmetic: the code path of the reference.
        max_logit_difference: the largest, of all words after all tokens.
        kl: the Kullback-Leibler divergence from the reference, in nats, the mean over tokens.
        kl_max: the same of the worst token.
        top1_agreement: fraction of tokens after which both hold the same word for the likeliest.
        perplexity: the perplexity of the text, by this model.
        reference_perplexity: the same by the reference.
        text_equal: whether the greedy texts are the same, token by token.
        equal_tokens: with which they begin alike.
        text: the greedy text of this one.
        reference_text: the greedy text of the reference.
    """

    KIND: ClassVar[str] = "parity"
    DERIVED: ClassVar[tuple[str, ...]] = ("perplexity_change",)

    arithmetic: str | None = None
    reference_model: str = ""
    reference_backend: str = ""
    reference_bits: Bits | None = None
    reference_arithmetic: str | None = None
    max_logit_difference: Distance | None = None
    kl: Distance | None = None
    kl_max: Distance | None = None
    top1_agreement: Fraction | None = None
    perplexity: Perplexity | None = None
    reference_perplexity: Perplexity | None = None
    text_equal: bool | None = None
    equal_tokens: Count | None = None
    text: str | None = None
    reference_text: str | None = None

    @property
    def perplexity_change(self) -> float | None:
        """How far the perplexity is above the reference's, as a fraction of it."""
        if self.perplexity is None or not self.reference_perplexity:
            return None
        return self.perplexity / self.reference_perplexity - 1


KINDS: Mapping[str, type[Record]] = {
    kind.KIND: kind
    for kind in (
        *(Record, SpeedRecord, DiskRecord, PagingRecord),
        *(AblationRecord, QueryRecord, ParityRecord, ServingRecord, EvaluationRecord),
        TrainingRecord,
    )
}
"""The kinds of records, by their names in a file."""

BACKEND_FIELDS = frozenset({"backend", "reference_backend"})


def record_of(document: object) -> Record:
    """Return the record that a JSON object of a result file is.

    Figures are derived again from the samples. The first version wrote no kind.

    Raises:
        FieldError: a field is missing, or holds what it cannot.
    """
    if not isinstance(document, dict):
        raise FieldError("it", quoted(document), "an object")
    name = document.get("kind", Record.KIND)
    if not isinstance(name, str) or name not in KINDS:
        raise FieldError("kind", quoted(name), f"one of {', '.join(KINDS)}")
    kind = KINDS[name]
    names = {one.name for one in fields(kind)} - {"unknown"}
    for one in fields(kind):
        is_required = one.default is MISSING and one.default_factory is MISSING
        if is_required and one.name not in document:
            raise FieldError(one.name, "missing", in_words(field_types(kind)[one.name]))
    known = {*names, *kind.DERIVED, "kind"}
    given = {name: document[name] for name in names & document.keys()}
    for name in BACKEND_FIELDS & given.keys():
        if isinstance(given[name], str):
            given[name] = current_name(given[name])
    return kind(
        **given,
        unknown={name: value for name, value in document.items() if name not in known},
    )

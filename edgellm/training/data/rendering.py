"""Records in a model's tokens: prompts are read, answers are learned."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgellm.console.units import plural
from edgellm.errors import ConfigError, TokenizerError
from edgellm.tokenizer import Tokenizer
from edgellm.training.data.control_text import ControlText
from edgellm.training.data.conversations import Part, Template, conversation, text_of
from edgellm.training.data.records import Record
from edgellm.training.micro_batch import NOT_ASKED, TrainingSequence, token_ids

TOKEN_CHARACTERS = 256
"""More than any token of a vocabulary has; the longest are runs of 128 blanks."""

SPARE_TOKENS = 64
"""Behind those that are learned, so that where a message is cut changes none of them."""


@dataclass(slots=True)
class Rendered:
    """Sequences, and what became of the records.

    Attributes:
        sequences: one a record, or several of a long text.
        tokens: of all.
        learned: tokens that are learned.
        cut: records that were longer than a sequence may be.
        left_out: lines of records of which nothing would be learned.
        held: records that hold the text of a control token, which is text.
        control: lines of those where the vocabulary has no other tokens for it; they are left out.
        equal: lines of pairs whose two answers are the same tokens; they are left out, too.
        parted: conversations of which each answer is a sequence of its own.
        text_bytes: of texts that are learned whole, in UTF-8.
        paired: whether each two sequences are a pair of preferences.
    """

    sequences: list[TrainingSequence] = field(default_factory=list)
    cut: int = 0
    left_out: list[int] = field(default_factory=list)
    held: int = 0
    control: list[int] = field(default_factory=list)
    equal: list[int] = field(default_factory=list)
    parted: int = 0
    text_bytes: int = 0
    paired: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return sum(len(one.tokens) for one in self.sequences)

    @property
    def learned(self) -> int:
        """Tokens that are learned."""
        return sum(one.asked for one in self.sequences)

    @property
    def counted(self) -> str:
        """How many there are, in words."""
        if self.paired:
            return plural(len(self.sequences) // 2, "pair")
        return plural(len(self.sequences), "sequence")

    @property
    def repeated(self) -> int:
        """Sequences or pairs that are there already: the same tokens, and the same are learned."""
        digests = self._digests()
        return len(digests) - len(set(digests))

    def in_common(self, other: Rendered) -> int:
        """Return how many of its sequences or pairs are another's, too."""
        theirs = set(other._digests())
        return sum(digest in theirs for digest in self._digests())

    def _digests(self) -> list[bytes]:
        """Return what tells each sequence, or each pair, from the others."""
        digests = list(map(_digest, self.sequences))
        if not self.paired:
            return digests
        return [one + other for one, other in zip(digests[::2], digests[1::2], strict=True)]

    @property
    def nbytes(self) -> int:
        """Bytes of all sequences in memory."""
        return sum(one.nbytes for one in self.sequences)

    def require_any(self, noun: str) -> None:
        """Raise ConfigError where nothing would be learned; it says why."""
        if self.sequences:
            return
        reasons = "; ".join([f"nothing would be learned of any {noun}", *self.notes()])
        hint = "look at what the records hold"
        if self.cut:
            hint = f"raise --max-tokens, or {hint}"
        raise ConfigError(reasons, hint=hint)

    def notes(self, *, verb: str = "learned") -> list[str]:
        """Return what a person should know of the records, in sentences.

        Args:
            verb: what is done with them.
        """
        said = []
        repeated = self.repeated
        if self.cut:
            said.append(f"cut at --max-tokens: {plural(self.cut, 'record')}")
        if repeated:
            noun = "pair" if self.paired else "sequence"
            said.append(f"there more than once, and {verb} as often: {plural(repeated, noun)}")
        if self.parted:
            said.append(
                f"of {plural(self.parted, 'record')} each answer is {verb} by itself: the chat "
                "template writes earlier turns in another way once later ones follow"
            )
        if self.left_out:
            said.append(f"nothing is {verb} of {listed_lines(self.left_out, 'record')}")
        if self.held:
            said.append(
                f"the text of a control token in {plural(self.held, 'record')} is read and {verb} "
                "as text; whole chats are given as messages"
            )
        if self.control:
            said.append(
                "left out for the text of a control token that cannot be told from it: "
                f"{listed_lines(self.control, 'record')}"
            )
        if self.equal:
            said.append(f"left out for equal answers: {listed_lines(self.equal, 'pair')}")
        return said


def render(
    records: Sequence[Record], tokenizer: Tokenizer, *, template: Template, max_tokens: int
) -> Rendered:
    """Return records as sequences of at most ``max_tokens``.

    Of a conversation the assistant's turns are learned, with the token that ends them. A text is
    learned whole, in windows where it is longer.

    Raises:
        ConfigError: nothing is learned of any record.
        FormatError: a chat template refuses a record; says its line.
    """
    control = ControlText(tokenizer)
    found = Rendered()
    for whole in records:
        if not whole.text and not whole.messages:
            found.left_out.append(whole.line)
            continue
        given = whole.cut(most_characters(max_tokens))
        record = control.held(given)
        if record is None:
            found.control.append(given.line)
            continue
        try:
            parts = _parts(record, tokenizer, control, template, max_tokens)
        except TokenizerError:
            if record is given:
                raise
            found.control.append(record.line)
            continue
        found.held += record is not given
        if record.text:
            for window in parts:
                _add(*window, record, found)
            continue
        found.parted += len(parts) > 1
        found.cut += any(len(ids) > max_tokens for ids, _ in parts)
        for ids, learned in parts:
            _add(ids[:max_tokens], learned[:max_tokens], record, found)
    found.require_any("record")
    return found


def most_characters(max_tokens: int) -> int:
    """Return how much of a message is looked at: surely more than ``max_tokens`` of it."""
    return TOKEN_CHARACTERS * (max_tokens + SPARE_TOKENS)


def as_template_has_it(record: Record, tokenizer: Tokenizer) -> str:
    """Return a conversation as the chat template writes it. Raises FormatError."""
    return text_of(record, tokenizer, len(record.messages), prompt=False)


def learned_whole(ids: Sequence[int], number: int) -> TrainingSequence:
    """Return a sequence of which all is learned."""
    return TrainingSequence(token_ids(ids), token_ids((*ids[1:], NOT_ASKED)), number)


def _parts(
    record: Record,
    tokenizer: Tokenizer,
    control: ControlText,
    template: Template,
    max_tokens: int,
) -> list[Part]:
    """Return the windows of a text, or a conversation."""
    if not record.text:
        return conversation(record, tokenizer, template, control=control)
    ids = control.encode(record.text, add_special_tokens=True)
    end = min(tokenizer.eos_token_ids, default=None)
    if end is not None and ids[-1:] != [end]:
        ids = [*ids, end]
    # the last token of a window begins the next one, after which its second is learned
    begins = range(0, max(1, len(ids) - 1), max_tokens - 1)
    windows = [ids[begin : begin + max_tokens] for begin in begins]
    return [(window, [True] * len(window)) for window in windows]


def _add(ids: Sequence[int], learned: Sequence[bool], record: Record, found: Rendered) -> None:
    one = sequence(ids, learned, len(found.sequences), record.line)
    if one.asked:
        found.sequences.append(one)
    else:
        found.left_out.append(record.line)


def sequence(
    ids: Sequence[int], learned: Sequence[bool], number: int, line: int = 0
) -> TrainingSequence:
    """Return a sequence, whose token after each place is learned where that token is."""
    targets = [
        token if is_learned else NOT_ASKED
        for token, is_learned in zip(ids[1:], learned[1:], strict=True)
    ]
    return TrainingSequence(token_ids(ids), token_ids((*targets, NOT_ASKED)), number, line)


def _digest(one: TrainingSequence) -> bytes:
    """Return 16 bytes that tell sequences apart, in what is read and what is learned of it."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(one.tokens)
    digest.update(one.targets)
    return digest.digest()


def listed_lines(lines: Sequence[int], noun: str) -> str:
    """Return ``2 records (lines 3, 4)``."""
    shown = ", ".join(map(str, lines[:5]))
    if len(lines) > 5:
        shown += ", ..."
    return f"{plural(len(lines), noun)} ({'line' if len(lines) == 1 else 'lines'} {shown})"

"""Token ids back to text.

Each token is a fixed run of bytes, so that a stream is decoded in one pass.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from edgellm.errors import TokenizerError

REPLACEMENT = "\ufffd"
BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
MAX_TEXT = 64  # characters that one decoding step may insert or count
EACH_BYTE = "edgellm.each_byte"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How the tokens of one tokenizer become text.

    Attributes:
        byte_level: each character of a token stands for one byte, by GPT-2's table.
        literal: ids whose tokens are written as they are all the same.
        replacements: what is replaced in each token, in this order.
        byte_fallback: a token such as ``<0xE4>`` is one byte.
        strip: a character that goes from the start of the text, at most ``strip_count`` times.
        bare_start: a character that the very first token loses wherever it stands.
    """

    byte_level: bool = False
    literal: frozenset[int] = frozenset()
    replacements: tuple[tuple[str, str], ...] = ()
    byte_fallback: bool = False
    strip: str = ""
    strip_count: int = 0
    bare_start: str = ""


class Detokenizer:
    """The bytes of each token, and the text of ids; it may serve many threads.

    Args:
        token_of: the token of an id, ``None`` where there is none.
        special: ids that are control and not text.
        decoding: the rule.

    Attributes:
        decoding: the rule.
        errors: how broken UTF-8 is decoded: the name of a handler of ``codecs``.
    """

    def __init__(
        self, token_of: Callable[[int], str | None], special: Iterable[int], decoding: Decoding
    ) -> None:
        self._token_of = token_of
        self._special = frozenset(special)
        self.decoding = decoding
        self._known: dict[int, bytes | None] = {}
        # of broken UTF-8 ByteLevel shows each sequence as one sign, SentencePiece each byte
        self.errors: str = "replace"
        if decoding.byte_fallback:
            codecs.register_error(EACH_BYTE, _replace_each_byte)
            self.errors = EACH_BYTE

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool) -> str:
        """Return the text of ``ids``; ids without a token add nothing, broken UTF-8 is U+FFFD."""
        stream = StreamDecoder(self, skip_special_tokens=skip_special_tokens)
        parts = [stream.add(int(token_id)) for token_id in ids]
        return "".join(parts) + stream.finish()

    def bytes_of(self, token_id: int, *, skip_special_tokens: bool) -> bytes | None:
        """Return the bytes of a token; ``None`` for one that is skipped or not there."""
        if skip_special_tokens and token_id in self._special:
            return None
        if token_id not in self._known:
            token = self._token_of(token_id)
            data = None
            if token_id in self.decoding.literal and token is not None:
                data = token.encode("utf-8")
            elif token is not None:
                data = self._bytes(token)
            self._known[token_id] = data
        return self._known[token_id]

    def _bytes(self, token: str) -> bytes:
        rule = self.decoding
        for old, new in rule.replacements:
            token = token.replace(old, new)
        if rule.byte_fallback and BYTE_TOKEN.fullmatch(token):
            return bytes.fromhex(token[3:5])
        if rule.byte_level:
            try:
                return bytes(map(BYTE_OF.__getitem__, token))
            except KeyError:  # an added token is written as it is read
                pass
        return token.encode("utf-8")

    def control_text(self, token_id: int) -> str:
        """Return how a special token is written; ``""`` for one that is text."""
        if token_id not in self._special:
            return ""
        return self._token_of(token_id) or ""

    def start_of(self, token_id: int) -> bytes:
        """Return the bytes of a token that is the first of a text under the rule ``bare_start``."""
        token = self._token_of(token_id) or ""
        return self._bytes(token.replace(self.decoding.bare_start, ""))


@dataclass(slots=True)
class StreamDecoder:
    """A decoder of ids that come one by one: all its parts together are the text of ``decode``.

    No part ends in half a character.

    Args:
        detokenizer: the rule and the tokens.
        skip_special_tokens: whether control tokens add nothing to the text.
        continues: whether other text comes before, so that the space before a first word is kept.
    """

    detokenizer: Detokenizer
    skip_special_tokens: bool = True
    continues: bool = False
    _utf8: codecs.IncrementalDecoder = field(init=False)
    _started: bool = field(init=False)
    _to_strip: int = field(init=False)

    def __post_init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(self.detokenizer.errors)
        self._started = self.continues
        self._to_strip = 0
        if not self.continues:
            self._to_strip = self.detokenizer.decoding.strip_count

    def add(self, token_id: int) -> str:
        """Take one more id and return the text that it completes, often ``""``."""
        data = self.detokenizer.bytes_of(token_id, skip_special_tokens=self.skip_special_tokens)
        if data is None:
            return ""
        if not self._started:
            self._started = True
            if self.detokenizer.decoding.bare_start:
                data = self.detokenizer.start_of(token_id)
        return self._strip(self._utf8.decode(data))

    def copy(self) -> StreamDecoder:
        """Return a decoder that goes on from here with ids of its own."""
        other = copy(self)
        other._utf8 = codecs.getincrementaldecoder("utf-8")(self.detokenizer.errors)
        other._utf8.setstate(self._utf8.getstate())
        return other

    def control_text(self, token_id: int) -> str:
        """Return how a token is written that ``add`` skips; ``""`` for one that is text."""
        if not self.skip_special_tokens:
            return ""
        return self.detokenizer.control_text(token_id)

    def finish(self) -> str:
        """Return the end of the text: U+FFFD for a character that never came whole."""
        return self._strip(self._utf8.decode(b"", True))

    def _strip(self, text: str) -> str:
        """Return ``text`` without what goes from the start of all the text."""
        while self._to_strip and text:
            if text[0] != self.detokenizer.decoding.strip:
                self._to_strip = 0
                break
            text = text[1:]
            self._to_strip -= 1
        return text


def read_decoding(decoder: Any) -> Decoding:
    """Return the rule that the ``decoder`` of a tokenizer.json states.

    Raises:
        TokenizerError: it is damaged, or of a kind that no LLaMA-like model uses.
    """
    rule: dict[str, Any] = {}
    fused = False  # from here on a step sees the whole text, before it each token
    for step in steps_of(decoder, "decoders"):
        match step:
            case {"type": "ByteLevel"}:
                rule["byte_level"] = True
            case {"type": "ByteFallback"} if not fused:
                rule["byte_fallback"] = True
            case {"type": "Fuse"}:
                fused = True
            case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if (
                not fused
            ):
                if not old or len(new) > MAX_TEXT:
                    raise TokenizerError(
                        "the decoder of tokenizer.json has an impossible replacement"
                    )
                rule["replacements"] = (*rule.get("replacements", ()), (old, new))
            case {"type": "Strip", "content": str(strip), "start": int(count), "stop": 0} if fused:
                if len(strip) != 1 or not 0 <= count <= MAX_TEXT:
                    raise TokenizerError(
                        "the decoder of tokenizer.json strips an impossible amount"
                    )
                rule |= {"strip": strip, "strip_count": count}
            case {"type": "Metaspace", "replacement": str(space)} if len(space) == 1 and not fused:
                rule["replacements"] = (*rule.get("replacements", ()), (space, " "))
                scheme = step.get("prepend_scheme", "always")
                if scheme != "never" and step.get("add_prefix_space", True):
                    rule["bare_start"] = space
            case _:
                raise TokenizerError(
                    f"tokenizer.json decodes by a rule that edgellm does not know: {kind_of(step)}"
                )
    if rule.get("byte_level") and len(rule) > 1:
        raise TokenizerError("tokenizer.json decodes by ByteLevel and another rule at once")
    if not rule:
        raise TokenizerError("tokenizer.json has no decoder")
    return Decoding(**rule)


def steps_of(component: Any, name: str) -> list[Any]:
    """Return the steps of a component of a tokenizer.json, sequences flattened.

    Args:
        component: a mapping with a "type".
        name: under what key a sequence holds its parts.
    """
    if component is None:
        return []
    if isinstance(component, Mapping) and component.get("type") == "Sequence":
        parts = component.get(name)
        if not isinstance(parts, list):
            raise TokenizerError(f"a sequence in tokenizer.json has no list of {name}")
        return [step for part in parts for step in steps_of(part, name)]
    return [component]


def kind_of(step: Any) -> str:
    """Return the "type" of a component for an error message."""
    kind = step
    if isinstance(step, Mapping):
        kind = step.get("type")
    return ascii(kind)[:60]


def _byte_table() -> dict[str, int]:
    """Return the bytes of GPT-2's alphabet by character (its ``bytes_to_unicode``).

    Printable Latin-1 characters stand for themselves, the other bytes from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table |= {chr(0x100 + at): byte for at, byte in enumerate(others)}
    return table


BYTE_OF = _byte_table()


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return REPLACEMENT * (error.end - error.start), error.end

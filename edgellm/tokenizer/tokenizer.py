"""The tokenizer of a model folder: one class over two forms of vocabulary."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from edgellm.chat_template.end_texts import END_TEXTS, end_texts
from edgellm.chat_template.render_process import TemplateNames
from edgellm.chat_template.template import DEFAULT, ChatTemplate, choose_template, find_templates
from edgellm.errors import ConfigError, TokenizerError
from edgellm.files.given_path import given_path
from edgellm.files.strict_json import quoted
from edgellm.setting_values import (
    listed,
    listed_integers,
    require_text,
    shown,
    truth,
    whole_number,
)
from edgellm.settings import MAX_VOCABULARY
from edgellm.settings.argument_names import check_names
from edgellm.tokenizer.added_tokens import read_settings
from edgellm.tokenizer.detokenizer import Detokenizer, StreamDecoder
from edgellm.tokenizer.spm import PieceVocabulary
from edgellm.tokenizer.token_table import TokenTable, collector_paused
from edgellm.tokenizer.tokenizer_json import JsonVocabulary

SAMPLE_TEXTS = (
    "Once upon a time, in a land far away, there lived a king who had three daughters.",
    "def mean(values):\n    return sum(values) / len(values)  # 3.14159, 2024-02-29",
    "Stra\u00dfe, na\u00efve caf\u00e9; \u0442\u0435\u043a\u0441\u0442 "
    "\u65e5\u672c\u8a9e \u0e44\u0e17\u0e22  \U0001f600",
)
"""Texts that tokenizers with equal tokens and other rules split in different ways."""

FORMS = ({"tokenizer.json"}, {"tokenizer.model"}, {"vocab.json", "merges.txt"})
"""The files that a vocabulary may come in; the first form that is there is read."""


def has_vocabulary(names: Collection[str]) -> bool:
    """Return whether files of these names are a tokenizer."""
    return any(form <= set(names) for form in FORMS)


@check_names
class Tokenizer:
    """A tokenizer: text to ids and back; many threads may use it.

    A text that spells a special token becomes that token, in chat messages too: that is what
    transformers does, and what templates rely on. If you pass on untrusted text and mind that,
    take such strings out first.

    Args:
        vocabulary: the tokens.
        templates: the sources of chat templates by name.

    Attributes:
        vocab_size: the largest id plus one.
        bos_token_id: the id of the token that begins a text, ``None`` for none.
        eos_token_ids: the ids of the tokens that end a text, as the tokenizer's own files name
            them.
        turn_end_ids: the ids of tokens that end a turn by how they are written, and that a chat
            template writes.
        special_ids: tokens that are not shown as text.
        split_token_ids: tokens at which texts fall apart: the ids before one and from it on are
            those of two separate texts.
        drops_first_blank: whether the blank before the first word of a text is not shown.
        chat_template: the source of the usual chat template, ``None`` for none.
        today: the day that templates write, as ``2026-11-29``; ``None``: that of the clock.
    """

    def __init__(self, vocabulary: TokenTable, templates: Mapping[str, str]) -> None:
        self._vocabulary = vocabulary
        self._templates = {name: ChatTemplate(source) for name, source in templates.items()}
        self._detokenizer = Detokenizer(
            vocabulary.token_of, vocabulary.special_ids, vocabulary.decoding
        )
        self.vocab_size: int = vocabulary.size
        self.special_ids: frozenset[int] = vocabulary.special_ids
        self.split_token_ids: frozenset[int] = vocabulary.split_token_ids
        decoding = vocabulary.decoding
        self.drops_first_blank: bool = decoding.strip == " " or bool(decoding.bare_start)
        self.bos_token_id: int | None = self._id_of_role("bos_token")
        eos_token_id = self._id_of_role("eos_token")
        self.eos_token_ids: frozenset[int] = frozenset()
        if eos_token_id is not None:
            self.eos_token_ids = frozenset({eos_token_id})
        self.chat_template: str | None = templates.get(DEFAULT)
        self.today: str | None = None
        self.turn_end_ids: frozenset[int] = self._turn_ends("".join(templates.values()))

    @classmethod
    @collector_paused()
    def from_folder(cls, path: str | Path, *, vocab_size: int | None = None) -> Tokenizer:
        """Return the tokenizer of a model folder.

        It is read from tokenizer.json if there is one, else from tokenizer.model, else from
        vocab.json and merges.txt.

        Args:
            path: the folder.
            vocab_size: how many ids the model knows.

        Raises:
            TokenizerError: there is no tokenizer, it is damaged, or it has ids that the model does
                not know, more than a few added ones.
            TemplateError: a file with a chat template is damaged.
        """
        folder = given_path(path)
        if vocab_size is not None:
            vocab_size = whole_number("vocab_size", vocab_size, 1, MAX_VOCABULARY)
        settings = read_settings(folder)
        vocabulary: TokenTable
        if (folder / "tokenizer.json").exists():
            vocabulary = JsonVocabulary.from_file(folder / "tokenizer.json", settings, vocab_size)
        elif (folder / "tokenizer.model").exists():
            vocabulary = PieceVocabulary.from_file(folder / "tokenizer.model", settings, vocab_size)
        elif has_vocabulary([path.name for path in folder.glob("*.*")]):
            vocabulary = JsonVocabulary.from_merges(folder, settings, vocab_size)
        else:
            hint = "copy the tokenizer's files from the model's original folder"
            if (folder / "tekken.json").exists():
                hint = "convert the folder, which makes one of its tekken.json"
            raise TokenizerError(
                f"{folder} has no tokenizer.json and no tokenizer.model", hint=hint
            )
        if vocab_size is not None and vocabulary.size > vocab_size:
            raise TokenizerError(
                f"the tokenizer has ids up to {vocabulary.size - 1}, "
                f"but the model's vocabulary has {vocab_size} entries",
                hint="the tokenizer belongs to another model, or tokens were added to it only",
            )
        return cls(vocabulary, find_templates(folder, settings.config))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of ``text``.

        Args:
            text: any text; special tokens in it count as such.
            add_special_tokens: whether to add what the tokenizer puts around a text, such as
                ``<s>``.

        Raises:
            TokenizerError: the text holds half a surrogate pair, or the tokenizer fails on it.
        """
        _require_unicode(text)
        truth("add_special_tokens", add_special_tokens)
        return self._framed(self._vocabulary.encode(text), whole=add_special_tokens)

    def encode_marked(self, text: str, mark: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of ``text``, where control tokens are such behind a mark alone.

        Those are ``special_ids`` and ``turn_end_ids``; what spells one elsewhere is text.

        Args:
            text: any text.
            mark: a character that stands before the control tokens that are meant.
            add_special_tokens: as ``encode`` has it.

        Raises:
            ConfigError: the mark is not one character.
            TokenizerError: as ``encode``; or the vocabulary has no other tokens for such text.
        """
        _require_unicode(text)
        if len(require_text("mark", mark)) != 1:
            raise ConfigError(
                f"the mark {shown(mark)} is not one character",
                hint="give one that the text does not hold, such as '\\ue000'",
            )
        truth("add_special_tokens", add_special_tokens)
        control = self.special_ids | self.turn_end_ids
        ids = self._vocabulary.encode_marked(text, mark, control)
        return self._framed(ids, whole=add_special_tokens)

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt: those of ``encode``, but never with two BOS tokens.

        A text that begins as the tokenizer begins every text (a chat template, rendered and pasted)
        is left so, with a warning.

        Raises:
            TokenizerError: as ``encode``.
        """
        begin = self._vocabulary.begin
        ids = self.encode(text)
        if not begin or ids[len(begin) : 2 * len(begin)] != begin:
            return ids
        written = " ".join(map(self.id_to_token, begin))
        warnings.warn(
            f"the prompt begins with {written} already: no second one is added",
            UserWarning,
            stacklevel=2,
        )
        return ids[len(begin) :]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of ``ids``, with its spaces as they are; ids without a token add nothing.

        Args:
            ids: token ids.
            skip_special_tokens: whether tokens such as ``</s>`` add nothing.
        """
        truth("skip_special_tokens", skip_special_tokens)
        ids = listed_integers("ids", ids, "token ids")
        return self._detokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def decoder(
        self, *, skip_special_tokens: bool = True, continues: bool = False
    ) -> StreamDecoder:
        """Return a decoder of ids one by one: its parts together are what ``decode`` gives.

        Args:
            skip_special_tokens: whether tokens such as ``</s>`` add nothing.
            continues: whether the text goes on from another, a prompt for example: then the space
                before its first word is kept, so that prompt and text together read as one.
        """
        truth("skip_special_tokens", skip_special_tokens)
        truth("continues", continues)
        return StreamDecoder(
            self._detokenizer, skip_special_tokens=skip_special_tokens, continues=continues
        )

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        template: str | None = None,
        **variables: Any,
    ) -> str:
        """Return the text of a conversation.

        Args:
            messages: mappings with "role" and "content".
            add_generation_prompt: whether the text ends where the model's answer begins.
            template: the name of one of the folder's templates; without it "tool_use" where there
                are tools and such a template, else "default".
            variables: further names that the template knows, such as ``tools``; plain data.

        Raises:
            TemplateError: there is no such template, it fails, or it refuses the conversation.
        """
        messages = listed("messages", messages, "a list of mappings with role and content")
        truth("add_generation_prompt", add_generation_prompt)
        if template is not None:
            require_text("template", template)
        roles = {role: token for role, token in self._vocabulary.named.items() if token is not None}
        visible = {
            "tools": None,
            "documents": None,
            **roles,
            **({} if self.today is None else {"strftime_now": self.today}),
            **variables,
            "add_generation_prompt": add_generation_prompt,
        }
        chosen = choose_template(self._templates, template, tools=bool(visible["tools"]))
        return chosen.render(messages, visible)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        template: str | None = None,
        **variables: Any,
    ) -> list[int]:
        """Return the ids of a conversation; arguments and errors are those of ``render``.

        The template writes ``<s>`` and its like itself: nothing is added.
        """
        text = self.render(
            messages, add_generation_prompt=add_generation_prompt, template=template, **variables
        )
        return self.encode(text, add_special_tokens=False)

    def template_source(self, *, tools: bool = False) -> str:
        """Return the text of the usual template, as a program. Raises TemplateError."""
        return choose_template(self._templates, None, tools=truth("tools", tools)).source

    def template_names(self, *, tools: bool = False) -> TemplateNames:
        """Return the names that the usual template reads. Raises TemplateError, as ``render``."""
        return choose_template(self._templates, None, tools=truth("tools", tools)).names

    def difference(self, other: Tokenizer) -> str | None:
        """Return in words how another tokenizer gives other ids, ``None`` where it does not.

        Ids beyond the smaller vocabulary do not count: a model often has a few tokens more than its
        smaller sibling.
        """
        if not isinstance(other, Tokenizer):
            raise ConfigError(f"other is {shown(other)}; it must be a Tokenizer")
        mine, theirs = self._vocabulary, other._vocabulary
        for token_id in range(min(mine.size, theirs.size)):
            one, two = mine.token_of(token_id), theirs.token_of(token_id)
            if one != two and one is not None and two is not None:
                return f"token {token_id} is {quoted(one)} in one and {quoted(two)} in the other"
        for text in SAMPLE_TEXTS:
            if self.encode(text, add_special_tokens=False) != other.encode(
                text, add_special_tokens=False
            ):
                return f"they split {quoted(text)} in different ways"
        return None

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token is in a text, and those that a special one is written with.

        They may be a part of a character; none where there is no such token.
        """
        token_id = whole_number("token_id", token_id, -sys.maxsize, sys.maxsize)
        return self._detokenizer.bytes_of(token_id, skip_special_tokens=False) or b""

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token, ``None`` where there is none."""
        return self._vocabulary.id_of(require_text("token", token))

    def id_to_token(self, token_id: int) -> str:
        """Return the token of an id, as the vocabulary writes it.

        Raises:
            TokenizerError: there is none.
        """
        token_id = whole_number("token_id", token_id, -sys.maxsize, sys.maxsize)
        token = self._vocabulary.token_of(token_id)
        if token is None:
            raise TokenizerError(
                f"there is no token {token_id}; the vocabulary has {self.vocab_size} ids"
            )
        return token

    def end_ids(self, named: frozenset[int]) -> frozenset[int]:
        """Return the ids that end a completion, and warn of those that only the template knows.

        Args:
            named: by the model's config.
        """
        if not isinstance(named, Set):
            raise ConfigError(f"named is {shown(named)}; it must be a set of token ids")
        ends = named | self.eos_token_ids
        others = self.turn_end_ids - ends
        if others:
            listed = ", ".join(self.id_to_token(token_id) for token_id in sorted(others))
            warnings.warn(
                f"answers also end at {listed}, which ends a turn in the chat template "
                "but is not an end token of the config",
                UserWarning,
                stacklevel=2,
            )
        return ends | others

    def _framed(self, ids: list[int], *, whole: bool) -> list[int]:
        """Return the ids of a text, with what the tokenizer puts around a whole one."""
        if whole:
            return [*self._vocabulary.begin, *ids, *self._vocabulary.end]
        return ids

    def _turn_ends(self, templates: str) -> frozenset[int]:
        known = {text: self._vocabulary.id_of(text) for text in END_TEXTS}
        tokens = {text for text, token_id in known.items() if token_id is not None}
        written = (known[text] for text in end_texts(tokens) if text in templates)
        return frozenset(token_id for token_id in written if token_id is not None)

    def _id_of_role(self, role: str) -> int | None:
        token = self._vocabulary.named.get(role)
        if token is None:
            return None
        return self._vocabulary.id_of(token)


def _require_unicode(text: str) -> None:
    """Raise TokenizerError where a text holds half a surrogate pair."""
    require_text("text", text)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"the text has no valid Unicode character at place {error.start}"
        ) from error

"""The grammar of a reply: what it is held to begins when its thinking has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgellm.chat.tool_use.tool_grammar import ToolGrammars
from edgellm.chat_template.thinking import Markers
from edgellm.settings import Sampling
from edgellm.structured.grammar import Grammar
from edgellm.structured.lark import literal, tokens, written
from edgellm.tokenizer import Tokenizer

_BLANKS = r"/[ \n]{0,4}/"


def special_tokens(tokenizer: Tokenizer, end_tokens: frozenset[int]) -> dict[str, int]:
    """Return the ids of special tokens that may stand in a reply, by how they are written."""
    within = tokenizer.special_ids - end_tokens - {tokenizer.bos_token_id}
    return {tokenizer.id_to_token(token): token for token in within}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyGrammars:
    """Makes the grammars of a conversation's replies.

    Attributes:
        markers: the texts around thinking, None where none are known.
        special: ids of special tokens, by how they are written.
        may_think: whether a reply may think where the prompt has not begun to.
        tools: makes those of tool calls; None without tools.
    """

    markers: Markers | None
    special: Mapping[str, int]
    may_think: bool
    tools: ToolGrammars | None = None

    def grammar(self, sampling: Sampling, prompt: str) -> Grammar | None:
        """Return the form of the reply to a prompt, its thinking and tool calls included.

        Raises:
            ConfigError, BackendError: as ``ToolGrammars.grammar`` does.
        """
        grammar = sampling.grammar
        is_free = grammar is None and (self.tools is None or self.tools.is_free)
        if self.tools is not None:
            grammar = self.tools.grammar(grammar)
        if grammar is None or self.markers is None:
            return grammar
        opened = prompt.rstrip().endswith(self.markers.start)
        if not opened and (is_free or not self.may_think):
            return grammar
        return after_thinking(grammar, self.markers, self.special, opened=opened)


def after_thinking(
    answer: Grammar, markers: Markers, special: Mapping[str, int], *, opened: bool
) -> Grammar:
    """Return the grammar of a reply that thinks, and then has the form of ``answer``.

    Args:
        answer: the form of what follows.
        markers: around thinking and answer.
        special: ids of special tokens, by how they are written.
        opened: whether the prompt ends with the start of thinking; else it may begin there, or not.
    """
    whole = "@reply"
    for start, end in markers.answers:
        marked = f"{written(start, special)} {_BLANKS} @reply"
        if end:
            marked += f" {_BLANKS} {written(end, special)}"
        whole += f" | {marked}"
    rules = [f"whole: {whole}", "start: thought whole"]
    if not opened:
        rules[1] = f"start: ({written(markers.start, special)} thought)? whole"
    if markers.end in special:
        others = sorted(set(special.values()) - {special[markers.end]})
        piece = "TEXT"
        if others:
            piece = f"(TEXT | {tokens(others)})"
        rules += [
            f"thought: {piece}* {written(markers.end, special)} {_BLANKS}",
            r"TEXT: /(.|\n)+/",
        ]
    else:
        rules += [
            f"thought: ended {_BLANKS}",
            f"ended[lazy]: ANY {literal(markers.end)}",
            r"ANY: /(.|\n)*/",
        ]
    return Grammar.composed("\n".join(rules), {"reply": answer})

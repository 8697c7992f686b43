"""The fields that an endpoint knows: those that it reads, refuses and ignores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgellm.server.http.fields import Fields

Treatment = Literal["supported", "limited", "refused", "ignored"]

OF_OTHER_SERVERS = {
    "chat_template": "the model's own is used",
    "continue_final_message": "end with a message of the user",
    "documents": "put them into a message",
    "dry_multiplier": "use presence_penalty or frequency_penalty",
    "format": "give response_format",
    "guided_choice": "give response_format or grammar",
    "guided_decoding_backend": "leave it out",
    "guided_grammar": "give grammar",
    "guided_json": "give response_format",
    "guided_regex": "give grammar",
    "ignore_eos": "an end token ends an answer",
    "json_schema": "give response_format",
    "length_penalty": "this server samples, it does not search",
    "mirostat": "use min_p or top_p",
    "min_tokens": "an answer ends where the model ends it",
    "options": "give its fields one by one",
    "reasoning_budget": "give reasoning_effort",
    "repeat_penalty": "give repetition_penalty",
    "stop_token_ids": "give stop, with the tokens' texts",
    "structured_outputs": "give response_format",
    "thinking_budget": "give reasoning_effort",
    "thinking_token_budget": "give reasoning_effort",
    "truncate_prompt_tokens": "send a shorter prompt",
    "typical_p": "use min_p or top_p",
    "use_beam_search": "this server samples, it does not search",
    "xtc_probability": "use min_p or top_p",
}
"""Fields that clients of other servers know, and that would change the answer."""


OF_OTHER_APIS = {
    "frequency_penalty": "this API has none",
    "grammar": "use /v1/chat/completions",
    "input": "give messages, or a prompt to /v1/completions",
    "instructions": "give a system message",
    "logit_bias": "use /v1/chat/completions",
    "logprobs": "use /v1/chat/completions",
    "max_output_tokens": "give max_tokens",
    "n": "ask as often as you want answers",
    "output_config": "give response_format, and reasoning_effort",
    "output_format": "give output_config.format, or response_format",
    "presence_penalty": "this API has none",
    "reasoning": "give reasoning_effort",
    "response_format": "give output_config.format",
    "stop": "give stop_sequences",
    "stop_sequences": "give stop",
    "system": "give a system message",
    "text": "give response_format",
    "thinking": "give reasoning_effort",
}
"""Fields that one API has for what another calls otherwise; where they are not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldTable:
    """Says which fields of its reference an endpoint, or a part of it, reads and refuses.

    Attributes:
        supported: fields that are read.
        limited: fields that may have some values alone, those that mean what is done anyway; each
            with these values, and what to do instead of another.
        refused: fields that would change the answer, and what to do instead.
        ignored: fields without which the answer is the same.
        generates: whether the endpoint answers with new text.
    """

    supported: frozenset[str]
    limited: Mapping[str, tuple[tuple[Any, ...], str]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    generates: bool = True

    def check_request(self, fields: Fields) -> None:
        """Do as ``check`` does, for a whole request: some have fields of other servers and APIs."""
        fields.refuse(OF_OTHER_SERVERS)
        if self.generates:
            others = OF_OTHER_APIS.items()
            fields.refuse({name: how for name, how in others if self.treatment(name) is None})
        self.check(fields)

    def check(self, fields: Fields) -> None:
        """Refuse fields, and values of them, that are not supported. Raises ApiError."""
        fields.refuse(self.refused)
        for name, (values, instead) in self.limited.items():
            fields.allow(name, *values, instead=instead)

    def treatment(self, name: str) -> Treatment | None:
        """Return what is done with a field; None for one that is not in the table."""
        if name in self.supported:
            return "supported"
        if name in self.limited:
            return "limited"
        if name in self.refused:
            return "refused"
        if name in self.ignored:
            return "ignored"
        return None


def names(text: str) -> frozenset[str]:
    """Return the names in a text, between blanks."""
    return frozenset(text.split())

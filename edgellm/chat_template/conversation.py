"""A model's chat template as a conversation uses it: with its variables and thinking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgellm.chat_template.thinking import (
    ThinkingFilter,
    find_markers,
    template_variables,
    visible_reply,
)

if TYPE_CHECKING:
    from edgellm.tokenizer import Tokenizer


class ConversationTemplate:
    """The usual template of a model, with what is given to it in every turn.

    Args:
        tokenizer: of the model.
        think: whether the model is to think; None leaves it to the template.
        variables: further variables by their names (transformers' ``chat_template_kwargs``).

    Attributes:
        variables: all that is given, the switch for thinking too.
        markers: the texts around the model's thinking, None where none are known.

    Raises:
        TemplateError: the template has no such variable, or no switch for thinking.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        think: bool | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self.variables: dict[str, Any] = dict(variables or {})
        if think is not None or self.variables:
            names = tokenizer.template_names(tools=bool(self.variables.get("tools")))
            self.variables = template_variables(names, think=think, given=self.variables)
        self.markers = find_markers(
            tokenizer.chat_template or "", lambda text: tokenizer.token_to_id(text) is not None
        )
        self._marker_tokens = self._special_tokens_of_markers()

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the prompt of a conversation, thinking left out as the template says.

        Raises:
            TemplateError: the template fails, or refuses the conversation.
        """
        return self._tokenizer.render(list(map(self._visible, messages)), **self.variables)

    def thinking_filter(self, prompt: str) -> ThinkingFilter | None:
        """Return a filter for the reply to a prompt; None where the model has no thinking."""
        if self.markers is None:
            return None
        return ThinkingFilter(
            self.markers,
            opened=prompt.rstrip().endswith(self.markers.start),
            hidden=list(self._marker_tokens.values()),
        )

    def written(self, token_id: int | None) -> str:
        """Return how a special token is written that is part of a marker; others have no text."""
        if token_id is None:
            return ""
        return self._marker_tokens.get(token_id, "")

    def _visible(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.markers is None or "reasoning_content" not in message:
            return message
        names = self._tokenizer.template_names(tools=bool(self.variables.get("tools")))
        return visible_reply(message, names, self.markers)

    def _special_tokens_of_markers(self) -> dict[int, str]:
        if self.markers is None:
            return {}
        parts = self.markers.texts()
        tokens = {item: self._tokenizer.id_to_token(item) for item in self._tokenizer.special_ids}
        return {
            item: token
            for item, token in tokens.items()
            if token and any(token in part for part in parts)
        }

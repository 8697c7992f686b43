"""The tables of fields have every field that the newest clients can send."""

import pytest

from edgellm.server.anthropic.field_tables import COUNT_TOKENS, MESSAGES
from edgellm.server.openai.field_tables import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

pytestmark = pytest.mark.slow


def unknown(table, *params):
    names = {name for kind in params for name in kind.__annotations__}
    assert len(names) > 4
    return sorted(name for name in names if table.treatment(name) is None)


def test_openais_fields_are_in_the_tables():
    pytest.importorskip("openai")
    from openai.types import completion_create_params as completions
    from openai.types.chat import completion_create_params as chat
    from openai.types.embedding_create_params import EmbeddingCreateParams
    from openai.types.responses import response_create_params as responses

    assert unknown(CHAT, chat.CompletionCreateParamsStreaming) == []
    assert unknown(COMPLETIONS, completions.CompletionCreateParamsStreaming) == []
    assert unknown(EMBEDDINGS, EmbeddingCreateParams) == []
    assert unknown(RESPONSES, responses.ResponseCreateParamsStreaming) == []


def test_anthropics_fields_are_in_the_tables():
    pytest.importorskip("anthropic")
    from anthropic.types import message_count_tokens_params as counted
    from anthropic.types import message_create_params as messages

    streamed = messages.MessageCreateParamsStreaming
    assert unknown(MESSAGES, messages.MessageCreateParamsBase, streamed) == []
    assert unknown(COUNT_TOKENS, counted.MessageCountTokensParams) == []

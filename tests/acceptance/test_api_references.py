"""The tables of fields have every field that the newest clients can send."""

import pytest

from edgellm.server.anthropic import field_tables as anthropic_tables
from edgellm.server.anthropic.field_tables import COUNT_TOKENS, MESSAGES
from edgellm.server.openai import field_tables as openai_tables
from edgellm.server.openai.field_tables import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES

pytestmark = pytest.mark.slow


def unknown(table, *params):
    names = {name for kind in params for name in kind.__annotations__}
    assert len(names) > 1
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


def test_openais_fields_inside_fields_are_in_the_tables():
    pytest.importorskip("openai")
    from openai.types import responses
    from openai.types.chat import chat_completion_assistant_message_param as assistant
    from openai.types.chat import chat_completion_stream_options_param as stream_options
    from openai.types.chat import chat_completion_tool_message_param as tool
    from openai.types.responses import response_input_item_param as items
    from openai.types.shared_params import FunctionDefinition, Reasoning

    chat, response = (
        openai_tables.PARTS["/v1/chat/completions"],
        openai_tables.PARTS["/v1/responses"],
    )
    message = assistant.ChatCompletionAssistantMessageParam
    of_tool = tool.ChatCompletionToolMessageParam
    assert unknown(chat["messages[]"], message, of_tool) == []
    options = stream_options.ChatCompletionStreamOptionsParam
    assert unknown(chat["stream_options"], options) == []
    assert unknown(chat["tools[].function"], FunctionDefinition) == []
    assert unknown(response["reasoning"], Reasoning) == []
    assert unknown(response["text"], responses.ResponseTextConfigParam) == []
    assert unknown(response["tools[]"], responses.FunctionToolParam) == []
    known = [
        responses.EasyInputMessageParam,
        responses.ResponseFunctionToolCallParam,
        responses.ResponseReasoningItemParam,
        items.FunctionCallOutput,
    ]
    assert unknown(response["input[]"], *known) == []


def test_anthropics_fields_are_in_the_tables():
    pytest.importorskip("anthropic")
    from anthropic.types import message_count_tokens_params as counted
    from anthropic.types import message_create_params as messages

    streamed = messages.MessageCreateParamsStreaming
    assert unknown(MESSAGES, messages.MessageCreateParamsBase, streamed) == []
    assert unknown(COUNT_TOKENS, counted.MessageCountTokensParams) == []


def test_anthropics_fields_inside_fields_are_in_the_tables():
    anthropic = pytest.importorskip("anthropic")
    types = anthropic.types
    parts = anthropic_tables.PARTS["/v1/messages"]
    assert unknown(parts["tools[]"], types.ToolParam) == []
    assert unknown(parts["output_config"], types.OutputConfigParam) == []
    assert unknown(parts["thinking"], types.ThinkingConfigEnabledParam) == []
    assert unknown(parts["tool_choice"], types.ToolChoiceToolParam) == []
    blocks = [
        types.TextBlockParam,
        types.ThinkingBlockParam,
        types.ToolResultBlockParam,
        types.ToolUseBlockParam,
    ]
    assert unknown(parts["messages[].content[]"], *blocks) == []

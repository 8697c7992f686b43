"""The fields of OpenAI's endpoints."""

from __future__ import annotations

from edgellm.server.http.field_table import FieldTable, names

_OF_SAMPLING = (
    "frequency_penalty grammar logit_bias max_tokens min_p model n presence_penalty "
    "repetition_penalty seed stop stream stream_options temperature top_k top_p"
)
"""Read by all endpoints that complete; some of them are vLLM's."""

_ABOUT_THE_CALLER = (
    "metadata prompt_cache_key prompt_cache_options prompt_cache_retention "
    "safety_identifier service_tier user"
)
"""Who calls, what the provider keeps of it, and how it is billed."""

CHAT = FieldTable(
    supported=names(_OF_SAMPLING)
    | names(
        "chat_template_kwargs logprobs max_completion_tokens messages parallel_tool_calls "
        "reasoning_effort response_format tool_choice tools top_logprobs"
    ),
    limited={
        "modalities": ((["text"],), "this server answers with text"),
        "store": ((False,), "this server keeps nothing"),
        "verbosity": (("medium",), "say in the system message how long answers are to be"),
    },
    refused={
        "audio": "this server answers with text",
        "best_of": "give n",
        "echo": "it belongs to /v1/completions",
        "function_call": "give tool_choice",
        "functions": "give them as tools",
        "moderation": "this server has no moderation",
        "prompt_logprobs": "use echo and logprobs of /v1/completions",
        "suffix": "models only continue a text",
        "web_search_options": "this server looks nothing up",
    },
    ignored=names(_ABOUT_THE_CALLER) | {"prediction"},
)

COMPLETIONS = FieldTable(
    supported=names(_OF_SAMPLING) | {"echo", "logprobs", "prompt"},
    limited={"best_of": ((1,), "give n")},
    refused={
        "messages": "they belong to /v1/chat/completions",
        "prompt_logprobs": "give echo and logprobs",
        "response_format": "use /v1/chat/completions",
        "suffix": "models only continue a text",
        "tools": "they belong to /v1/chat/completions",
    },
    ignored=names(_ABOUT_THE_CALLER),
)

EMBEDDINGS = FieldTable(
    supported=names("encoding_format input model"),
    refused={"dimensions": "vectors have the model's hidden size"},
    ignored=frozenset({"user"}),
    generates=False,
)

RESPONSES = FieldTable(
    supported=names(
        "frequency_penalty include input instructions logit_bias max_output_tokens metadata min_p "
        "model parallel_tool_calls presence_penalty reasoning repetition_penalty seed stop stream "
        "temperature text tool_choice tools top_k top_logprobs top_p"
    ),
    limited={
        "background": ((False,), "ask, and wait for the answer"),
        "store": ((False,), "this server keeps nothing; send the whole conversation"),
        "truncation": (("disabled",), "send fewer items"),
    },
    refused={
        "context_management": "send fewer items",
        "conversation": "this server keeps nothing; send the whole conversation",
        "max_tokens": "give max_output_tokens",
        "messages": "give them as input",
        "moderation": "this server has no moderation",
        "n": "ask as often as you want answers",
        "previous_response_id": "this server keeps nothing; send the whole conversation",
        "prompt": "this server keeps no prompts; give instructions and input",
        "response_format": "give text.format",
    },
    ignored=names(
        "access_programs background_options image max_tool_calls prompt_cache_key "
        "prompt_cache_options prompt_cache_retention safety_identifier service_tier "
        "stream_options user"
    ),
)


MESSAGE = FieldTable(
    supported=names("content name reasoning_content refusal role tool_call_id tool_calls"),
    refused={"audio": "this server reads text", "function_call": "give tool_calls"},
)

STREAM_OPTIONS = FieldTable(supported=names("include_obfuscation include_usage"))

FUNCTION = FieldTable(supported=names("description name parameters strict"))

RESPONSES_TOOL = FieldTable(
    supported=names("description name parameters strict"),
    limited={
        "allowed_callers": ((["direct"],), "the model alone calls tools"),
        "async": ((False,), "the model waits for the output of a call"),
        "defer_loading": ((False,), "list the tools that the model is told of"),
        "type": (("function",), "this server calls no tools itself"),
    },
    ignored=frozenset({"output_schema"}),
)

REASONING = FieldTable(
    supported=frozenset({"effort"}),
    limited={
        "context": (("auto",), "the model's template knows what it is shown of earlier reasoning"),
        "mode": (("standard",), "there is one mode"),
    },
    ignored=names("generate_summary summary"),
)

TEXT = FieldTable(
    supported=frozenset({"format"}),
    limited={"verbosity": (("medium",), "say in instructions how long answers are to be")},
)

ITEM = FieldTable(
    supported=names("arguments call_id content name output role type"),
    limited={
        "async": ((False,), "the model waits for the output of a call"),
        "namespace": (("",), "tools have names alone"),
    },
    ignored=names("caller encrypted_content id phase status summary"),
)

PARTS: dict[str, dict[str, FieldTable]] = {
    "/v1/chat/completions": {
        "messages[]": MESSAGE,
        "stream_options": STREAM_OPTIONS,
        "tools[].function": FUNCTION,
    },
    "/v1/responses": {
        "input[]": ITEM,
        "reasoning": REASONING,
        "text": TEXT,
        "tools[]": RESPONSES_TOOL,
    },
}
"""Tables of what is inside the fields of requests."""

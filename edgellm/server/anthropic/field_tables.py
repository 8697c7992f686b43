"""The fields of Anthropic's endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.server.http.field_table import FieldTable, names

_CONVERSATION = names(
    "context_management messages model output_config system thinking tool_choice tools"
)

_IGNORED = names(
    "cache_control diagnostics inference_geo metadata service_tier speed user_profile_id "
    "workspace_id"
)
"""Who calls, where and how fast; all prompts are cached by their beginnings anyway."""

_LIMITED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "mcp_servers": (([],), "this server calls no tools itself"),
}

_REFUSED = {"container": "this server runs no code"}

MESSAGES = FieldTable(
    supported=_CONVERSATION
    | names("max_tokens min_p seed stop_sequences stream temperature top_k top_p"),
    limited=_LIMITED,
    refused=_REFUSED,
    ignored=_IGNORED,
)

COUNT_TOKENS = FieldTable(
    supported=_CONVERSATION,
    limited=_LIMITED,
    refused=_REFUSED,
    ignored=_IGNORED,
    generates=False,
)

TOOL = FieldTable(
    supported=names("description input_schema name strict"),
    limited={
        "allowed_callers": ((["direct"],), "the model alone calls tools"),
        "defer_loading": ((False,), "list the tools that the model is told of"),
        "type": (("custom",), "this server calls no tools itself"),
    },
    refused={"input_examples": "put them into the description"},
    ignored=names("cache_control eager_input_streaming"),
)

BLOCK = FieldTable(
    supported=names("content id input is_error name text thinking tool_use_id type"),
    ignored=names("cache_control caller citations signature toolset_name"),
)

THINKING = FieldTable(supported=names("budget_tokens display type"))

TOOL_CHOICE = FieldTable(supported=names("disable_parallel_tool_use name type"))

OUTPUT_CONFIG = FieldTable(
    supported=names("effort format"),
    refused={"task_budget": "give max_tokens"},
)

PARTS: dict[str, dict[str, FieldTable]] = {
    "/v1/messages": {
        "messages[].content[]": BLOCK,
        "output_config": OUTPUT_CONFIG,
        "thinking": THINKING,
        "tool_choice": TOOL_CHOICE,
        "tools[]": TOOL,
    },
}
"""Tables of what is inside the fields of requests."""

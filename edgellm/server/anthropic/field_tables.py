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
    supported=_CONVERSATION, limited=_LIMITED, refused=_REFUSED, ignored=_IGNORED
)

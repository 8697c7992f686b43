"""The clients that are known, each set up as its own documentation says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgellm.clients.setup import KEY_VARIABLE, NO_KEY, Setup, Target
from edgellm.errors import ConfigError
from edgellm.setting_values import shown

SMALL_CONTEXT = 32_768
"""Tokens that an agent's instructions and a few files take; with less they are cut."""


@dataclass(frozen=True, slots=True)
class Client:
    """A program that talks to servers.

    Attributes:
        title: as people call it.
        setup: returns what it needs.
        is_agent: whether it sends long instructions.
    """

    title: str
    setup: Callable[[Target], Setup]
    is_agent: bool = True


def find_client(name: str) -> Client:
    """Return a client. Raises ConfigError where none has this name."""
    found = CLIENTS.get(name)
    if found is None:
        raise ConfigError(
            f"{shown(name)} is no client that is known", hint=f"choose {', '.join(CLIENTS)}"
        )
    return found


def _claude_code(target: Target) -> Setup:
    # it adds /v1/messages itself, and asks a small model for titles and summaries
    variables = {
        "ANTHROPIC_BASE_URL": target.url,
        "ANTHROPIC_AUTH_TOKEN": NO_KEY,
        "ANTHROPIC_MODEL": target.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": target.model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    merged = {"env": dict(variables)}
    if target.has_keys:
        del merged["env"]["ANTHROPIC_AUTH_TOKEN"]  # a key is no setting
    return Setup(
        command="claude",
        variables={**variables, "ANTHROPIC_AUTH_TOKEN": target.shell_key},
        path=Path.home() / ".claude" / "settings.json",
        merged=merged,
        needs_settings=False,
    )


def _codex(target: Target) -> Setup:
    # a profile is a file of its own; the only API that it speaks is that of responses
    lines = [
        f"model = {json.dumps(target.model)}",
        'model_provider = "edgellm"',
        "",
        "[model_providers.edgellm]",
        'name = "edgellm"',
        f"base_url = {json.dumps(target.v1)}",
        'wire_api = "responses"',
    ]
    if target.has_keys:
        lines.append(f'env_key = "{KEY_VARIABLE}"')
    if target.context is not None:
        lines.insert(2, f"model_context_window = {target.context}")
    return Setup(
        command="codex --profile edgellm",
        path=Path.home() / ".codex" / "edgellm.config.toml",
        text="\n".join(lines) + "\n",
        is_own=True,
    )


def _opencode(target: Target) -> Setup:
    model: dict[str, object] = {"name": target.model}
    if target.context is not None:
        model["limit"] = {"context": target.context, "output": target.context // 2}
    options = {"baseURL": target.v1}
    if target.has_keys:
        options["apiKey"] = f"{{env:{KEY_VARIABLE}}}"
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "edgellm",
        "options": options,
        "models": {target.model: model},
    }
    return Setup(
        command=f"opencode --model edgellm/{target.model}",
        path=Path.home() / ".config" / "opencode" / "opencode.json",
        merged={"provider": {"edgellm": provider}},
    )


def _aider(target: Target) -> Setup:
    return Setup(
        command=f"aider --model openai/{target.model}",
        variables={"OPENAI_API_BASE": target.v1, "OPENAI_API_KEY": target.shell_key},
    )


def _continue(target: Target) -> Setup:
    lines = [
        "models:",
        f"  - name: {json.dumps(f'{target.model} (edgellm)')}",
        "    provider: openai",
        f"    model: {json.dumps(target.model)}",
        f"    apiBase: {json.dumps(target.v1)}",
        f"    apiKey: {'YOUR-KEY' if target.has_keys else NO_KEY}",
        "    roles: [chat, edit, apply]",
    ]
    return Setup(
        command="code .",
        path=Path.home() / ".continue" / "config.yaml",
        text="\n".join(lines) + "\n",
    )


def _zed(target: Target) -> Setup:
    model = {"name": target.model, "display_name": target.model, "max_tokens": 4096}
    if target.context is not None:
        model["max_tokens"] = target.context
    provider = {"api_url": target.v1, "available_models": [model]}
    variables = {}
    if not target.has_keys:
        variables[KEY_VARIABLE] = NO_KEY  # it takes no model without one
    return Setup(
        command="zed .",
        variables=variables,
        path=Path.home() / ".config" / "zed" / "settings.json",
        merged={"language_models": {"openai_compatible": {"edgellm": provider}}},
    )


def _llm(target: Target) -> Setup:
    lines = [
        f"- model_id: {json.dumps(target.model)}",
        f"  model_name: {json.dumps(target.model)}",
        f"  api_base: {json.dumps(target.v1)}",
    ]
    if target.has_keys:
        lines.append("  api_key_name: edgellm")
    return Setup(
        command=f"llm -m {target.model} 'Hello'",
        path=Path('$(dirname "$(llm logs path)")') / "extra-openai-models.yaml",
        text="\n".join(lines) + "\n",
    )


def _openai(target: Target) -> Setup:
    return Setup(
        command="python your_program.py",
        variables={"OPENAI_BASE_URL": target.v1, "OPENAI_API_KEY": target.shell_key},
    )


CLIENTS: Mapping[str, Client] = {
    "claude-code": Client("Claude Code", _claude_code),
    "codex": Client("Codex", _codex),
    "opencode": Client("opencode", _opencode),
    "aider": Client("aider", _aider),
    "continue": Client("Continue", _continue),
    "zed": Client("Zed", _zed),
    "llm": Client("llm", _llm, is_agent=False),
    "openai": Client("programs that use OpenAI's library", _openai, is_agent=False),
}

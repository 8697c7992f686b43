"""The chat templates that Mistral's native folders leave to mistral-common, by version.

They render plain turns of system, user and assistant to the ids of mistral-common 1.13.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

MISTRAL_BEGIN = "<s>"

_TURNS = (
    "{%- set turns = messages | rejectattr('role', 'equalto', 'system') | list -%}"
    "{%- for turn in turns -%}"
    "{%- if turn['role'] != ['user', 'assistant'][loop.index0 % 2] -%}"
    "{{ raise_exception('turns of user and assistant must alternate, the user first') }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{{- bos_token -}}"
)
_SYSTEM_TEXT = (
    "{%- set system = messages | selectattr('role', 'equalto', 'system')"
    " | map(attribute='content') | select | join('\\n\\n') -%}"
    "{%- if system -%}{%- set system = system + '\\n\\n' -%}{%- endif -%}"
)
_VERSION_1 = (
    _SYSTEM_TEXT + _TURNS + "{%- for turn in turns -%}"
    "{%- if turn['role'] == 'user' -%}"
    "{{- '[INST] ' -}}{%- if loop.first -%}{{- system -}}{%- endif -%}"
    "{{- turn['content'] + ' [/INST]' -}}"
    "{%- else -%}{{- ' ' + turn['content'] + eos_token -}}{%- endif -%}"
    "{%- endfor -%}"
)
_SYSTEM_IN_LAST_TURN = (
    _SYSTEM_TEXT + _TURNS + "{%- for turn in turns -%}"
    "{%- if turn['role'] == 'user' -%}"
    "{{- '[INST]' -}}{%- if loop.revindex <= 2 -%}{{- system -}}{%- endif -%}"
    "{{- turn['content'] + '[/INST]' -}}"
    "{%- else -%}{{- turn['content'].rstrip(' ') + eos_token -}}{%- endif -%}"
    "{%- endfor -%}"
)
_OWN_SYSTEM_TURNS = (
    _TURNS + "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{{- '[SYSTEM_PROMPT]' + message['content'] + '[/SYSTEM_PROMPT]' -}}"
    "{%- elif message['role'] == 'user' -%}"
    "{{- '[INST]' + message['content'] + '[/INST]' -}}"
    "{%- else -%}{{- message['content'].rstrip(' ') + eos_token -}}{%- endif -%}"
    "{%- endfor -%}"
)

TEMPLATES: Mapping[str, str] = {
    "v1": _VERSION_1,
    "v2": _SYSTEM_IN_LAST_TURN,
    "v3": _SYSTEM_IN_LAST_TURN,
    "v7": _OWN_SYSTEM_TURNS,
    "v11": _OWN_SYSTEM_TURNS,
    "v13": _OWN_SYSTEM_TURNS,
}
"""Version 15 puts the settings of a model before a turn, which no template here does."""

ROLES = {"bos_token": MISTRAL_BEGIN, "eos_token": "</s>", "unk_token": "<unk>"}


def mistral_settings(version: str, tokens: Collection[str]) -> dict[str, Any]:
    """Return what tokenizer_config.json says of roles and of a chat.

    Args:
        version: the version of the form of a chat; without a template where it is unknown.
        tokens: the special ones, of which a template may need some that are not there.
    """
    settings: dict[str, Any] = {role: token for role, token in ROLES.items() if token in tokens}
    template = TEMPLATES.get(version)
    # to version 1, [INST] is text
    if template is not None and (version == "v1" or set(_written(template)) <= set(tokens)):
        settings["chat_template"] = template
    return settings | {"clean_up_tokenization_spaces": False}


def no_template_note(version: str) -> str:
    """Return what to say of a version without a template."""
    return (
        f"the tokenizer is of Mistral's version {version}, whose form of a chat edgellm does not "
        "know: no chat template is written for it"
    )


def _written(template: str) -> list[str]:
    """Return the special tokens that a template writes."""
    return re.findall(r"\[/?[A-Z_]+\]", template)

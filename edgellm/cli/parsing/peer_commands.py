"""Commands as users of ollama, llm, mlx_lm and llama.cpp type them."""

from __future__ import annotations

from collections.abc import Mapping

from edgellm.errors import ConfigError

OUR_COMMANDS: Mapping[str, str] = {
    "run": "chat",
    "talk": "chat",
    "complete": "generate",
    "completion": "generate",
    "prompt": "generate",
    "ls": "list",
    "models": "list",
    "cache": "list",
    "download": "pull",
    "get": "pull",
    "install": "pull",
    "remove": "rm",
    "delete": "rm",
    "show": "info",
    "quantize": "convert",
    "server": "serve",
    "start": "serve",
}
"""Commands of other programs that mean exactly one of ours; help does not show them."""

PEER_HINTS: Mapping[str, tuple[str, str]] = {
    "ps": (
        "no model runs in the background",
        "edgellm list shows models on disk, and /v1/models of edgellm serve those in memory",
    ),
    "stop": (
        "no model runs in the background",
        "Ctrl-C ends the command that runs one, and its memory is free",
    ),
    "push": (
        "models are uploaded where they are made",
        "edgellm convert SOURCE DEST --upload OWNER/NAME",
    ),
    "create": (
        "a model is a folder, and convert makes it",
        "edgellm convert SOURCE DEST; a system message is given with --system",
    ),
    "cp": (
        "a model is a folder, which is copied as any other",
        "edgellm info MODEL shows where it lies",
    ),
    "login": ("the Hub's own program keeps its token", "hf auth login"),
    "fuse": (
        "adapters are merged where a model is converted",
        "edgellm convert SOURCE DEST --adapter PATH",
    ),
    "train": (
        "edgellm does not train",
        "mlx_lm.lora does; edgellm convert --adapter merges what it makes",
    ),
}
"""A fact and a next step for commands of other programs that we have not."""

SAME_HINT: Mapping[str, str] = {
    "kill": "stop",
    "unload": "stop",
    "upload": "push",
    "copy": "cp",
    "signin": "login",
    "lora": "train",
    "finetune": "train",
}


def explained(name: str) -> ConfigError | None:
    """Return what is right about a command that other programs have and we have not."""
    found = PEER_HINTS.get(SAME_HINT.get(name, name))
    if found is None:
        return None
    fact, hint = found
    return ConfigError(fact, hint=hint)

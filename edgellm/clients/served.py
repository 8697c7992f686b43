"""Asks a server on this machine, or elsewhere, for its models."""

from __future__ import annotations

import urllib.error
import urllib.request
from urllib.parse import urlsplit

from edgellm.clients.setup import Target
from edgellm.errors import BackendError, ConfigError, FormatError
from edgellm.files.strict_json import parse_json
from edgellm.setting_values import shown

SECONDS = 5.0
MAX_BYTES = 1 << 20


def ask_server(url: str, model: str = "", key: str | None = None) -> Target:
    """Return a model of a server.

    Args:
        url: of the server, with or without ``/v1``.
        model: its name; empty for the first one.
        key: that the server asks for.

    Raises:
        ConfigError: ``url`` is none, or the server has no such model.
        BackendError: the server does not answer, or not as OpenAI's API does.
    """
    root = url.rstrip("/").removesuffix("/v1")
    parts = urlsplit(root)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            f"--url {shown(url)} is not a server's URL", hint="give http://127.0.0.1:8080"
        )
    request = urllib.request.Request(f"{root}/v1/models")
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    # no proxy: the server is this machine, or one that a person has named
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=SECONDS) as reply:
            found = parse_json(reply.read(MAX_BYTES + 1), "the answer", max_bytes=MAX_BYTES)
        models = {one["id"]: one for one in found["data"]}
    except urllib.error.HTTPError as error:
        error.close()
        hint = "check the URL"
        if error.code == 401:
            hint = "give --api-key-file, the file that the server was started with"
        raise BackendError(f"{root} answers with {error.code}", hint=hint) from error
    except OSError as error:
        raise BackendError(
            f"no server answers at {root}", hint="start one first: edgellm serve MODEL"
        ) from error
    except (FormatError, KeyError, TypeError) as error:
        raise BackendError(
            f"{root} does not answer as OpenAI's API does", hint="check the URL"
        ) from error
    if not models or (model and model not in models):
        raise ConfigError(
            f"the server has no model {shown(model)}; it has {', '.join(models) or 'none'}",
            hint="name one of them with --model",
        )
    model = model or next(iter(models))
    context = models[model].get("context_length")
    if not isinstance(context, int):
        context = None
    return Target(url=root, model=model, context=context, has_keys=key is not None)

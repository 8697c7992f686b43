"""Flower, imported when a federation begins: without telemetry, and silent."""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from edgellm.errors import BackendError

RELEASE = "1.42"
"""Whose parts the modules of this folder use; those of other releases are others."""

INSTALL = (
    "install it, in edgellm's checkout and an environment of its own: pip install '.[federated]' "
    f"&& pip install --no-deps 'flwr=={RELEASE}.0'"
)


@cache
def require_flower() -> None:
    """Make Flower ready to be imported. Raises BackendError where it cannot be."""
    try:
        found = version("flwr")
    except PackageNotFoundError as error:
        raise BackendError(
            "federated learning needs Flower, which is not installed", hint=INSTALL
        ) from error
    if not found.startswith(f"{RELEASE}."):
        raise BackendError(
            f"edgellm's federation is written for Flower {RELEASE}, and {found} is installed",
            hint=INSTALL,
        )
    # read when Flower is imported
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    try:
        import flwr.supercore.logger as flower_log

        for name in ("fastapi", "sqlalchemy", "uvicorn"):
            import_module(name)
    except ImportError as error:
        raise BackendError(
            f"a library that Flower needs is missing: {error}", hint=INSTALL
        ) from error
    if "FLWR_LOG_LEVEL" not in os.environ:
        flower_log.console_handler.setLevel(logging.CRITICAL)

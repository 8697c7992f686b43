"""A check that MLX can be imported, made before work that would end without it."""

from __future__ import annotations


def require_backend() -> None:
    """Raise BackendError, which says what to install, where MLX cannot be imported."""
    import edgellm

    _ = edgellm.LLM

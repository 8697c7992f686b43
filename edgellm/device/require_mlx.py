"""A check that MLX can be imported, made before work that would end without it."""

from __future__ import annotations

from importlib import import_module

from edgellm.errors import BackendError


def require_backend() -> None:
    """Raise BackendError, which says what to install, where MLX cannot be imported."""
    try:
        import_module("mlx.core")
    except ImportError as error:
        without_backend = missing_backend(error)
        if without_backend is None:
            raise
        raise without_backend from error


def missing_backend(error: ImportError) -> BackendError | None:
    """Return the error that says what to install where MLX is what failed to import, or None."""
    if error.name != "mlx" and "libmlx" not in str(error):
        return None
    return BackendError(
        "MLX has no backend here",
        hint="install one, in edgellm's checkout: pip install '.[cpu]' or '.[cuda]'",
    )

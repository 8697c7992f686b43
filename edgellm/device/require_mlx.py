"""A check that MLX can be imported, made before work that would end without it."""

from __future__ import annotations

from edgellm.errors import BackendError


def require_backend() -> None:
    """Raise BackendError, which says what to install, where MLX cannot be imported."""
    try:
        import mlx.core  # noqa: F401
    except ImportError as error:
        raise missing_backend(error) from error


def missing_backend(error: ImportError) -> Exception:
    """Return the error to raise for a failed import: BackendError where MLX was what failed."""
    if error.name == "mlx" or "libmlx" in str(error):
        return BackendError(
            "MLX has no backend here",
            hint="install one, in edgellm's checkout: pip install '.[cpu]' or '.[cuda]'",
        )
    return error

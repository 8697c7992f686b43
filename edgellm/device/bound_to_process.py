"""Objects that belong to the process that made them."""

from __future__ import annotations

from typing import NoReturn

from edgellm.errors import EdgeLLMError


class BoundToProcess:
    """An object with memory, threads or files of this process, which no copy would have."""

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied. Raises EdgeLLMError."""
        raise EdgeLLMError(
            f"{type(self).__name__} objects are neither pickled nor copied:"
            " they have memory and threads of this process",
            hint="load the model in each process, from the same folder",
        )

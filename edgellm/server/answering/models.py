"""The models that a server has, by the names that requests give."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edgellm.async_llm import AsyncLLM
from edgellm.server.http.api_error import ApiError


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that answers requests.

    Attributes:
        name: by which requests ask for it.
        llm: the model.
        created: when it was loaded, in seconds since 1970.
    """

    name: str
    llm: AsyncLLM
    created: int = field(default_factory=lambda: int(time.time()))


class Models:
    """The models of a server.

    Args:
        served: by their names.
    """

    def __init__(self, served: Mapping[str, ServedModel]) -> None:
        self._served = dict(served)

    def __iter__(self) -> Iterator[ServedModel]:
        """Return an iterator over all of them."""
        return iter(self._served.values())

    def find(self, name: str) -> ServedModel:
        """Return the model that a request asks for; raises ApiError (404) where there is none."""
        found = self._served.get(name)
        if found is None:
            names = ", ".join(self._served)
            raise ApiError(
                404,
                f"there is no model {name!r} here; there is {names}",
                "model",
                "model_not_found",
            )
        return found

    async def aclose(self) -> None:
        """Close all models."""
        for served in self._served.values():
            await served.llm.aclose()

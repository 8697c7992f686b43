"""The models of a server, by the names that requests give; they share a memory budget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from edgellm.async_llm import AsyncLLM
from edgellm.errors import ClosedError, ConfigError, EdgeLLMError, MemoryBudgetError
from edgellm.hub.resolve import locate
from edgellm.memory_plan.plan_checkpoint import budget_for, plan_for
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint
from edgellm.runtime.loader import LoadProgress
from edgellm.server.http.api_error import ApiError, log_fault
from edgellm.settings import LoadSettings

State = Literal["unloaded", "loading", "loaded"]

WAIT_SECONDS = 60.0
"""Time that a request waits for others to let go of the memory that its model needs."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that answers requests.

    Attributes:
        name: by which requests ask for it.
        llm: the model.
    """

    name: str
    llm: AsyncLLM


@dataclass(slots=True, eq=False)
class ModelEntry:
    """A name that requests may give.

    Attributes:
        name: the name.
        source: a folder, a Hub id or a bundled name.
        created: when it was entered, in seconds since 1970.
        served: the model; None while it is not loaded.
        users: requests that use it, or wait for it.
        last_used: on ``time.monotonic``, when the last of them ended.
        memory: bytes of its budget.
    """

    name: str
    source: str
    created: int = field(default_factory=lambda: int(time.time()))
    served: ServedModel | None = None
    users: int = 0
    last_used: float = 0.0
    memory: int = 0
    _loading: asyncio.Task[None] | None = None
    _unloading: asyncio.TimerHandle | None = None

    @property
    def state(self) -> State:
        """Whether it is in memory: loaded, loading or unloaded."""
        if self.served is not None:
            return "loaded"
        if self._loading is not None:
            return "loading"
        return "unloaded"


class Models:
    """The models of a server: loaded when they are asked for, unloaded when nobody uses them.

    Its coroutines run in one event loop.

    Args:
        sources: folders, Hub ids or bundled names by the names of the models.
        load: how each is loaded.
        memory: bytes for all that are loaded; None where there is one model alone, whose budget is
            that of ``load``.
        keep_alive: seconds after its last request in which a model stays; None for ever.
        parallel: answers that a model computes side by side; None for as many as fit.
        max_queue: answers that may wait for that; None for any number.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        *,
        load: LoadSettings | None = None,
        memory: int | None = None,
        keep_alive: float | None = None,
        parallel: int | None = None,
        max_queue: int | None = None,
    ) -> None:
        self._entries = {name: ModelEntry(name, source) for name, source in sources.items()}
        self._load = load or LoadSettings()
        self._memory = memory
        self._keep_alive = keep_alive
        self._parallel = parallel
        self._max_queue = max_queue
        self._moving = asyncio.Lock()
        """Held by whoever loads or unloads: memory is counted for one at a time."""
        self._let_go = asyncio.Event()
        """Set whenever a request ends."""
        self._tasks: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[ModelEntry]:
        """Return an iterator over all names."""
        return iter(self._entries.values())

    def find(self, name: str) -> ModelEntry:
        """Return what is known by a name; raises ApiError (404) where there is nothing."""
        found = self._entries.get(name)
        if found is None:
            names = ", ".join(self._entries)
            raise ApiError(
                404,
                f"there is no model {name!r} here; there is {names}",
                "model",
                "model_not_found",
            )
        return found

    def enter(self, name: str, llm: AsyncLLM) -> None:
        """Take in a model that its caller has loaded, and closes."""
        self._entries[name].served = ServedModel(name, llm)

    async def preload(self, name: str, progress: LoadProgress) -> None:
        """Load a model before anybody asks for it; errors are those of ``edgellm.load``.

        Args:
            name: the model.
            progress: called with bytes read and bytes in all.
        """
        await self._bring(self._entries[name], progress)

    async def hold(self, name: str) -> ServedModel:
        """Return a model, loaded now if it is not; it stays until ``release``.

        Requests that come while it is loaded wait for the same model.

        Raises:
            ApiError: there is no such model (404), no memory for it (503), or it cannot be loaded.
            MemoryBudgetError: it needs more memory than there is for all models.
        """
        entry = self.find(name)
        entry.users += 1
        if entry._unloading is not None:
            entry._unloading.cancel()
            entry._unloading = None
        try:
            while entry.served is None:
                if entry._loading is None:
                    entry._loading = asyncio.create_task(self._bring(entry))
                # who leaves lets the others have it
                await asyncio.shield(entry._loading)
        except (ClosedError, MemoryBudgetError):
            self.release(name)
            raise
        except EdgeLLMError as error:
            self.release(name)
            log_fault(f"the model {name} cannot be loaded: {error}")
            raise ApiError(
                500,
                f"the model {name!r} cannot be loaded; the server's log says why",
                "model",
                "model_not_loaded",
            ) from error
        except BaseException:
            self.release(name)
            raise
        return entry.served

    def release(self, name: str) -> None:
        """Let go of a model, once for each ``hold``."""
        entry = self._entries[name]
        entry.users -= 1
        entry.last_used = time.monotonic()
        self._let_go.set()
        if entry.users or entry.served is None or self._keep_alive is None:
            return
        loop = asyncio.get_running_loop()
        entry._unloading = loop.call_later(self._keep_alive, self._begin_unloading, entry)

    async def aclose(self) -> None:
        """Unload all models; answers that are under way get ClosedError."""
        for entry in self._entries.values():
            if entry._loading is not None:
                entry._loading.cancel()
            await self._unload(entry)

    async def _bring(self, entry: ModelEntry, progress: LoadProgress | None = None) -> None:
        """Load a model, after those have left that it needs the memory of."""
        try:
            async with self._moving:
                settings = self._load
                if self._memory is not None:
                    entry.memory = await self._make_room(entry, self._memory)
                    settings = replace(settings, memory=entry.memory)
                llm = await AsyncLLM.load(
                    entry.source,
                    settings,
                    progress=progress,
                    max_queue=self._max_queue,
                    at_once=self._parallel,
                )
                entry.served = ServedModel(entry.name, llm)
        finally:
            entry._loading = None

    async def _make_room(self, entry: ModelEntry, memory: int) -> int:
        """Return the bytes for a model, once they are free.

        Idle models leave, least recently used first. Where all others are in use, it takes what
        they leave, if it runs in that; else it waits for one of them.
        """
        wanted = await self._bytes_wanted(entry, memory)
        waits_until = time.monotonic() + WAIT_SECONDS
        while True:
            loaded = [one for one in self if one.served is not None]
            free = memory - sum(one.memory for one in loaded)
            if wanted <= free:
                return wanted
            idle = [one for one in loaded if not one.users]
            if idle:
                await self._unload(min(idle, key=lambda one: one.last_used))
                continue
            with suppress(MemoryBudgetError):
                if free > 0:
                    return await self._bytes_wanted(entry, free)
            self._let_go.clear()
            try:
                async with asyncio.timeout(waits_until - time.monotonic()):
                    await self._let_go.wait()
            except TimeoutError:
                raise ApiError(
                    503, f"other models are using the memory that {entry.name} needs; try again"
                ) from None

    async def _bytes_wanted(self, entry: ModelEntry, memory: int) -> int:
        """Return the bytes of the plan of a model in a budget; raises MemoryBudgetError."""
        settings = replace(self._load, memory=memory)

        def planned() -> int:
            return plan_for(read_any_checkpoint(locate(entry.source)), settings).total_bytes

        return await asyncio.to_thread(planned)

    def _begin_unloading(self, entry: ModelEntry) -> None:
        async def unload() -> None:
            async with self._moving:
                if not entry.users:
                    await self._unload(entry)

        task = asyncio.get_running_loop().create_task(unload())
        self._tasks.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _unload(self, entry: ModelEntry) -> None:
        served, entry.served = entry.served, None
        if served is not None:
            await served.llm.aclose()


def make_models(
    sources: Mapping[str, str],
    settings: LoadSettings,
    *,
    keep_alive: float | None,
    parallel: int | None,
    max_queue: int | None,
) -> Models:
    """Return the models of a server; arguments as ``Models`` has them.

    Raises:
        ConfigError: several models are to have one draft model.
    """
    memory = None
    if len(sources) > 1:
        if settings.draft is not None:
            raise ConfigError(
                "a draft model cannot be had for several models", hint="leave out --draft"
            )
        memory = budget_for(settings)
    return Models(
        sources,
        load=settings,
        memory=memory,
        keep_alive=keep_alive,
        parallel=parallel,
        max_queue=max_queue,
    )

"""A model as it is kept on a machine of a cluster: the whole folder, or some layers of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.distributed.parts.digests import folder_digests
from edgellm.errors import MachineError
from edgellm.reading.disk_reader import Reader
from edgellm.reading.tuning import measure_disk

Answer = tuple[Mapping[str, Any], Sequence[memoryview]]


class Held(Protocol):
    """A model on a machine that computes layers of it."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The model, of which not all may be here. Raises MachineError where none is known."""
        ...

    def files(self) -> Mapping[str, str]:
        """Return the digests of a whole folder's files; none where not all is here."""
        ...

    def disk_rate(self) -> float:
        """Return bytes per second of the disk on which it lies. Raises ReadError."""
        ...

    def step_reader(self) -> Reader | None:
        """Return what gives weights for measuring arithmetic; None: the files do."""
        ...

    def answer(self, head: Mapping[str, Any], body: memoryview) -> Answer:
        """Answer what the first machine asks of the files. Raises EdgeLLMError."""
        ...

    def prepare(self, head: Mapping[str, Any]) -> None:
        """Look for the files of what is to be opened. Raises EdgeLLMError."""
        ...

    def close(self) -> None:
        """End what is under way."""
        ...


class WholeFolder:
    """A model's folder with all its files.

    Args:
        checkpoint: the model.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def files(self) -> Mapping[str, str]:
        """Return the digests of the files. Raises FormatError, ReadError."""
        return folder_digests(self.checkpoint.folder.path)

    def disk_rate(self) -> float:
        """Measure reads of the layers' files. Raises ReadError."""
        files = {extent.file for layer in self.checkpoint.layers for extent in layer.extents}
        return measure_disk(sorted(files))

    def step_reader(self) -> None:
        """Let the files give the weights."""

    def answer(self, head: Mapping[str, Any], body: memoryview) -> Answer:
        """Refuse: all that may be asked of a whole folder is asked of every machine."""
        raise MachineError(f"nobody here knows what {head['ask']!r} is")

    def prepare(self, head: Mapping[str, Any]) -> None:
        """Do nothing: all is here."""

    def close(self) -> None:
        """Do nothing."""

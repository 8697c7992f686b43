"""Layers of a model on a machine that has not got all of it: carried there, or sent to it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.folder import PART
from edgellm.checkpoint.safetensors_file import read_header
from edgellm.console.units import size
from edgellm.distributed.parts.digests import kept_digests
from edgellm.distributed.supply.arriving import ArrivingFile, arrived_bytes
from edgellm.distributed.supply.held import Answer
from edgellm.distributed.supply.part_file import PartFile, Wanted, part_files, with_files
from edgellm.distributed.supply.told_model import checkpoint_from, name_of
from edgellm.errors import ConversionError, FormatError, MachineError
from edgellm.files.locations import cache_folder, make_private_folder
from edgellm.files.refusals import write_error
from edgellm.files.strict_json import read_json
from edgellm.reading.blank_reader import BlankReader
from edgellm.reading.disk_sample import disk_sample
from edgellm.reading.tuning import measure_disk

SPARE_BYTES = 64 << 20
"""Room that is left on a disk beside what is sent to it."""

OTHER_DISK = "free some space there, or let XDG_CACHE_HOME name a folder on another disk"


def part_cache() -> Path:
    """Return the folder of what is sent to this machine, of all models."""
    return cache_folder() / "parts"


def read_told(folder: Path) -> dict[str, Any]:
    """Return the model that a folder with a part of it is of. Raises FormatError, ReadError."""
    told = read_json(folder / PART).get("model")
    if not isinstance(told, dict):
        raise FormatError(f"{folder / PART} does not say of which model it is a part")
    checkpoint_from(told, folder)
    return told


class PartFolder:
    """Files of layers, in a folder that was carried here and in the cache; others can be sent.

    Args:
        carried: a folder that ``edgellm cluster part`` has made; None: there is none.
        cache: where what is sent lies, of all models; None: ``part_cache()``.
        say: is told, in a line, what happens.

    Raises:
        FormatError, ReadError: the carried folder is none of that kind.
    """

    def __init__(
        self,
        carried: Path | None = None,
        *,
        cache: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._say = say
        self._carried = carried
        self._carried_model = None if carried is None else name_of(read_told(carried))
        self._cache: Path = cache or part_cache()
        self._place = self._cache
        self._told: Checkpoint | None = None
        self._part: Checkpoint | None = None
        self._arriving: ArrivingFile | None = None

    @property
    def checkpoint(self) -> Checkpoint:
        """The model, with the places of what was opened last."""
        found = self._part or self._told
        if found is None:
            raise MachineError("this machine has not been told which model it computes")
        return found

    def files(self) -> Mapping[str, str]:
        """Return nothing: each part is compared by itself."""
        return {}

    def disk_rate(self) -> float:
        """Measure the disk to which a part comes. Raises ReadError."""
        with self._writing():
            make_private_folder(self._place)
        with disk_sample(self._place) as files:
            return measure_disk(files)

    def step_reader(self) -> BlankReader:
        """Let weights be any numbers: arithmetic takes as long."""
        return BlankReader()

    def answer(self, head: Mapping[str, Any], body: memoryview) -> Answer:
        """Answer what the first machine asks before it opens a part. Raises EdgeLLMError."""
        match head["ask"]:
            case "model":
                self._tell(head["model"])
            case "held":
                return {"answer": [self._state(file) for file in self._files(head)]}, ()
            case "room":
                self._require_room(head["bytes"])
            case "take":
                self._take(head, body)
            case asked:
                raise MachineError(f"nobody here knows what {asked!r} is")
        return {}, ()

    def prepare(self, head: Mapping[str, Any]) -> None:
        """Find the files of a part. Raises MachineError where one is not the first machine's."""
        self._tell(head["model"])
        assert self._told is not None, "it was told"
        found = {}
        for file, digest in zip(self._files(head), head["digests"], strict=True):
            state = self._state(file)
            if state["sha256"] != digest:
                raise MachineError(
                    f"{file.title} is not here as it is on the first machine",
                    hint="load the model again, which sends it",
                )
            found[file.layer] = read_header(self._path(file))[0]
        self._part = with_files(self._told, Wanted.asked(head), found)

    def close(self) -> None:
        """End what is under way; what has come stays."""
        if self._arriving is not None:
            self._arriving.close()
            self._arriving = None

    def _tell(self, told: Mapping[str, Any]) -> None:
        name = name_of(told)
        if self._carried is not None and self._carried_model != name:
            raise MachineError(
                f"the part in {self._carried.name} is of another model",
                hint="make it anew: edgellm cluster part MODEL FOLDER --layers ...",
            )
        self._place = self._cache / name
        self._told, self._part = checkpoint_from(told, self._place), None

    def _files(self, head: Mapping[str, Any]) -> list[PartFile]:
        if self._told is None:
            raise MachineError("this machine has not been told which model it computes")
        wanted = Wanted.asked(head)
        if not all(0 <= number <= len(self._told.layers) for number in wanted.layers):
            raise MachineError("a layer was asked for that the model has not")
        return part_files(self._told, wanted)

    def _path(self, file: PartFile) -> Path:
        """Return where a file lies, or will: carried ones come first."""
        if self._carried is not None and (self._carried / file.name).is_file():
            return self._carried / file.name
        return self._place / file.name

    def _state(self, file: PartFile) -> dict[str, Any]:
        """Return what is here of a file: its digest if it is whole, or the bytes that have come."""
        path = self._path(file)
        if not path.is_file():
            return {"sha256": None, "bytes": arrived_bytes(path), "carried": False}
        with kept_digests() as kept:
            digest = kept.of_file(path)
        return {"sha256": digest, "bytes": 0, "carried": path.parent == self._carried}

    def _require_room(self, needed: int) -> None:
        with self._writing():
            make_private_folder(self._place)
            free = shutil.disk_usage(self._place).free
        if needed + SPARE_BYTES > free:
            raise ConversionError(
                f"its part needs {size(needed)} more, and {size(SPARE_BYTES)} are left free; the "
                f"disk of {self._place} has {size(free)} free",
                hint=OTHER_DISK,
            )
        self._say(f"the first machine sends {size(needed)} of its layers, into {self._place}")

    def _take(self, head: Mapping[str, Any], body: memoryview) -> None:
        """Write some bytes of a file, and the name when it is whole."""
        (file,) = self._files(head)
        path, start = self._place / file.name, int(head["at"])
        if start + body.nbytes > file.nbytes:
            raise MachineError(f"more was sent of {file.title} than it has")
        arriving = self._arriving
        if arriving is None or arriving.path != path or arriving.nbytes != start:
            self.close()
            arriving = self._arriving = ArrivingFile(path, start)
        arriving.append(body)
        if arriving.nbytes == file.nbytes:
            try:
                arriving.finish(head["sha256"])
            finally:
                self.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(self._place, error) from error

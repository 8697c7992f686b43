"""A model on several machines becomes an ``LLM``, which knows no difference."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from edgellm.distributed.choice import choose_split
from edgellm.distributed.forecast import choose_cut
from edgellm.distributed.gathered import gather
from edgellm.distributed.loaded_rows import load_rows
from edgellm.distributed.loaded_windows import load_windows
from edgellm.distributed.opened import Opened
from edgellm.distributed.parts.cut import Cut
from edgellm.distributed.parts.part import MakeReader
from edgellm.distributed.rates import Rates
from edgellm.distributed.row_choice import choose_shares
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint
from edgellm.runtime.loader import LoadProgress, SendProgress, open_reader
from edgellm.settings import LoadSettings


def open_cluster(
    checkpoint: AnyCheckpoint,
    settings: LoadSettings,
    *,
    progress: LoadProgress | None = None,
    sending: SendProgress | None = None,
    cut: Cut | None = None,
    make_reader: MakeReader = open_reader,
) -> Opened:
    """Load a model on this machine and those that ``settings.machines`` names.

    Args:
        checkpoint: the model.
        settings: as for ``load``; memory and threads are this machine's.
        progress: told of the bytes that arrive here.
        sending: told of those that are sent to machines which have not got the model.
        cut: which machine has which layers; None: by their memories and disks, or rows of each,
            as ``settings.split`` says.
        make_reader: opens what reads this machine's layers.

    Raises:
        MachineError: a machine cannot be reached, refuses, or is not like this one.
        ConfigError, MemoryBudgetError, ReadError: as ``load``, here or there.
    """
    with ExitStack() as on_failure:
        gathered = replace(gather(checkpoint, settings, on_failure), sending=sending)
        rates = Rates(gathered)
        if cut is None and choose_split(gathered, rates) == "rows":
            chosen = choose_shares(gathered, rates)
            opened = load_rows(gathered, chosen, make_reader, progress, on_failure)
        else:
            cut = cut or choose_cut(gathered, rates).cut
            opened = load_windows(gathered, cut, make_reader, progress, on_failure)
        on_failure.pop_all()
    return opened

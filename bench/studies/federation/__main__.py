"""Measure what four story-tellers learn together, each from its own stories.

    python -m edgellm.bench.studies.federation [MODEL] [--records 48] [--rounds 6] [--kill 2]

Each tells stories of one kind, and learns from those alone. Reported are the losses of other
stories of each kind: by the model as it is, by what each learned alone in as many steps, and by
what they learned together; and each round's bytes, seconds and memory. With ``--kill`` the last one
is killed after that round. Needs Flower.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgellm.bench.studies.federation.losses import losses
from edgellm.bench.studies.federation.processes import EDGELLM, Outcome, federate
from edgellm.bench.studies.federation.stories import write_stories
from edgellm.console.terminal import write_line
from edgellm.errors import MachineError
from edgellm.files.locations import temporary_folder
from edgellm.training.low_rank import LoraSettings, targets_named

TOGETHER = "together"


def main() -> None:
    """Print the figures."""
    asked = _parsed()
    lora = LoraSettings(rank=asked.rank, dropout=0.0, targets=targets_named("all"))
    lessons = ["--rank", str(lora.rank), "--on", "all", "--dropout", "0", "--decay", "0"]
    lessons += ["--batch", str(asked.batch), "--rate", str(asked.rate), "--template", "plain"]
    lessons += ["--max-tokens", "256"]
    device = ["--memory", asked.memory, "--threads", str(asked.threads)]
    with temporary_folder() as place:
        data = write_stories(place, records=asked.records, held_out=asked.held_out, seed=asked.seed)
        server = [*lessons, "--steps", str(asked.steps), "--rounds", str(asked.rounds)]
        if asked.freeze_a:
            server.append("--freeze-a")
        client = list(device)
        if asked.clip_update:
            client += ["--clip-update", str(asked.clip_update), "--noise", str(asked.noise)]
        outcome = federate(
            asked.model,
            place / TOGETHER,
            data,
            server=server,
            client=client,
            killed_after=asked.kill,
        )
        _tell_rounds(outcome)
        adapters = {TOGETHER: place / TOGETHER}
        if not asked.only_together:
            for name, (learned, _) in data.items():
                adapters[name] = place / f"alone-{name}"
                words = ["train", asked.model, str(learned), str(adapters[name]), "--answers", "0"]
                words += [*lessons, *device, "--steps", str(asked.steps * asked.rounds)]
                _run([*words, "--schedule", "constant", "--warmup", "0"])
        others = {name: held for name, (_, held) in data.items()}
        found = losses(asked.model, lora, adapters, others, place=place)
    _tell_losses(found, list(others))
    if asked.output:
        document = {
            "losses": found,
            "rounds": outcome.rounds,
            "codes": {"server": outcome.code, **outcome.clients},
        }
        asked.output.write_text(json.dumps(document, indent=2) + "\n")


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", default="stories")
    parser.add_argument("--records", type=int, default=48, help="of each client")
    parser.add_argument("--held-out", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=6, help="of a client per round")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", default="600MB", help="of each client")
    parser.add_argument("--threads", type=int, default=1, help="of each client")
    parser.add_argument("--kill", type=int, default=None, help="after this round, the last client")
    parser.add_argument("--freeze-a", action="store_true")
    parser.add_argument("--clip-update", type=float, default=0.0)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--only-together", action="store_true", help="nobody learns alone")
    parser.add_argument("--output", type=Path, default=None, help="a file of JSON")
    return parser.parse_args()


def _run(words: Sequence[str]) -> None:
    done = subprocess.run([*EDGELLM, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(f"a command has failed: {done.stderr}", hint=" ".join(words))


def _tell_rounds(outcome: Outcome) -> None:
    """Print each round's line as the server says it, and the exit codes."""
    for line in outcome.said.splitlines():
        if "invitation" not in line:
            write_line(line)
    codes = ", ".join(f"{name} {code}" for name, code in outcome.clients.items())
    write_line(f"exit codes: server {outcome.code}, {codes}; {outcome.seconds:.1f} s")


def _tell_losses(found: Mapping[str, Mapping[str, float]], kinds: Sequence[str]) -> None:
    """Print losses: a line for who has learned, a column for what is told."""
    write_line("loss of other stories, nats per token")
    write_line("  ".join(["who has learned".ljust(18), *(kind.rjust(8) for kind in kinds), "mean"]))
    for name, own in found.items():
        values = [own[kind] for kind in kinds]
        shown = [f"{value:8.4f}" for value in [*values, sum(values) / len(values)]]
        said = name if name in {"before", TOGETHER} else f"{name} alone"
        write_line("  ".join([said.ljust(18), *shown]))


if __name__ == "__main__":
    main()

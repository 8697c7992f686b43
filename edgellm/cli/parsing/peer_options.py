"""Options as users of other programs type them, and values that are missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.errors import ConfigError
from edgellm.settings.peer_names import OUR_NAMES

SHORT_OPTIONS: Mapping[str, str] = {
    "-n": "--max-tokens",
    "--predict": "--max-tokens",
    "-c": "--context",
    "--ctx": "--context",
    "-md": "--draft",
    "--grammar-file": "--grammar",
    "--json-schema-file": "--json-schema",
    "--model-draft": "--draft",
    "-sys": "--system",
    "-r": "--stop",
    "--reverse-prompt": "--stop",
}
"""Options of other programs' command lines that mean exactly one of ours."""

SAME_VALUES = frozenset(
    {
        *("max_tokens", "temperature", "repetition_penalty", "beams", "seed", "stop"),
        *("context", "threads", "draft", "system"),
    }
)
"""Settings of ours that take the values which other programs have for theirs."""

MODEL_OPTIONS = ("-m", "--model")
"""Options that other programs have for the argument MODEL."""

MODEL_ARGUMENTS = ("MODEL", "[MODEL ...]")
"""The argument of ours that they mean, as usage lines have it."""

PEER_HINTS: Mapping[str, str] = {
    "-t": "did you mean --threads or --temperature?",
    "-s": "did you mean --seed or --system?",
    "-o": "each setting has its own option, such as --temperature 0.8",
    "-f": "to read a prompt from a file: --prompt - < FILE",
    "--file": "to read a prompt from a file: --prompt - < FILE",
    "--verbose": "speeds are printed below an answer on a terminal, and with --json",
    "--hf-path": "the source needs no option: edgellm convert SOURCE DEST",
    "--mlx-path": "the destination needs no option: edgellm convert SOURCE DEST",
    "-ngl": "leave it out; --memory says how much may be used",
    "--gpu-layers": "leave it out; --memory says how much may be used",
    "--n-gpu-layers": "leave it out; --memory says how much may be used",
}
"""Next steps after options of other programs that we have not, or that mean several of ours."""


TRAINING_OPTIONS: Mapping[str, str] = {
    "--lr": "--rate",
    "--learning-rate": "--rate",
    "--lr-scheduler-type": "--schedule",
    "--lr-schedule": "--schedule",
    "--warmup-ratio": "--warmup",
    "--weight-decay": "--decay",
    "--max-grad-norm": "--clip",
    "--batch-size": "--batch",
    "--micro-batch-size": "--batch",
    "--per-device-train-batch-size": "--batch",
    "--iters": "--steps",
    "--max-steps": "--steps",
    "--num-train-epochs": "--epochs",
    "--num-epochs": "--epochs",
    "--max-seq-length": "--max-tokens",
    "--cutoff-len": "--max-tokens",
    "--lora-rank": "--rank",
    "--lora-r": "--rank",
    "--lora-alpha": "--alpha",
    "--lora-dropout": "--dropout",
    "--lora-target": "--on",
    "--lora-target-modules": "--on",
    "--target-modules": "--on",
    "--num-layers": "--layers",
    "--lora-layers": "--layers",
    "--use-dora": "--dora",
    "--use-rslora": "--rslora",
    "--resume-adapter-file": "--start-from",
    "--resume-from-checkpoint": "--resume",
    "--save-steps": "--save-every",
    "--steps-per-save": "--save-every",
    "--val-file": "--valid",
    "--eval-data": "--valid",
}
"""Options of mlx-lm, TRL, PEFT's examples, LLaMA-Factory and Axolotl, as ours are called."""

TRAINING_HINTS: Mapping[str, str] = {
    "--data": "the data need no option: edgellm train MODEL DATA OUT",
    "--adapter-path": "the folder needs no option: edgellm train MODEL DATA OUT",
    "--output-dir": "the folder needs no option: edgellm train MODEL DATA OUT",
    "--train": "leave it out: edgellm train MODEL DATA OUT",
    "--gradient-accumulation-steps": "leave it out: --batch are the records of a step, however it "
    "is cut",
    "--grad-accumulation-steps": "leave it out: --batch are the records of a step, however it "
    "is cut",
    "--grad-checkpoint": "leave it out: --memory decides what is computed again",
    "--gradient-checkpointing": "leave it out: --memory decides what is computed again",
    "--mask-prompt": "leave it out: prompts are never learned",
    "--load-in-4bit": "leave it out: a model in 4 bits is trained as it is",
}
"""Next steps after those that training here has no use for."""


def our_option(flag: str) -> str | None:
    """Return our option that another program's means, with the same values; None: there is none."""
    ours = OUR_NAMES.get(_setting(flag))
    if ours in SAME_VALUES:
        return _flag(ours)
    return SHORT_OPTIONS.get(flag)


def peer_hint(flag: str, known: Sequence[str] = ()) -> str | None:
    """Return the next step after an option of another program that we have not as it is.

    Args:
        flag: the option.
        known: the options of the command, of which ``--rate`` is training's alone.
    """
    spelled = flag.replace("_", "-")
    if "--epochs" in known:
        if TRAINING_OPTIONS.get(spelled) in known:
            return f"did you mean {TRAINING_OPTIONS[spelled]}?"
        if spelled in TRAINING_HINTS:
            return TRAINING_HINTS[spelled]
    if ours := OUR_NAMES.get(_setting(flag)):
        return f"did you mean {_flag(ours)}?"
    return PEER_HINTS.get(flag)


def our_words(words: Sequence[str], parameters: Sequence[Any], command: str) -> list[str]:
    """Return a command's words with other programs' options called as ours.

    Args:
        words: what follows the command's name.
        parameters: typer's, of the command.
        command: the words that call it.

    Raises:
        ConfigError: an option's value is missing, or the option is another program's alone.
    """
    flags = _flags(parameters)
    takes_model = any(
        item.metavar in MODEL_ARGUMENTS and item.param_type_name == "argument"
        for item in parameters
    )
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*found, word, *rest]
        flag, sign, value = word.partition("=")
        if re.fullmatch(r"-[a-z]\d+", flag) and flag[:2] not in flags:  # -n64
            flag, sign, value = flag[:2], "=", flag[2:]
        if flag in MODEL_OPTIONS and takes_model and flag not in flags:
            found.insert(0, value or _value(flag, "MODEL", rest, flags, command))
            continue
        if re.fullmatch("-[a-z]{2,}", flag) and flag in PEER_HINTS:  # typer reads it as several
            raise ConfigError(f"there is no option {flag}", hint=PEER_HINTS[flag])
        ours = our_option(flag)
        if flag not in flags and ours in flags:
            flag = ours
        found.append(f"{flag}{sign}{value}")
        parameter = flags.get(flag)
        if parameter is not None and not sign and _takes_value(parameter):
            found.append(_value(word, parameter.metavar, rest, flags, command))
    return found


def _setting(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _flag(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _flags(parameters: Sequence[Any]) -> dict[str, Any]:
    """Return typer's options by each of their names."""
    return {
        name: item
        for item in parameters
        if item.param_type_name == "option"
        for name in (*item.opts, *item.secondary_opts)
    }


def _takes_value(parameter: Any) -> bool:
    return not parameter.is_flag and not parameter.count


def _value(
    flag: str, metavar: str | None, rest: list[str], flags: Mapping[str, Any], command: str
) -> str:
    """Take an option's value off the rest; another option is none. Raises ConfigError."""
    if rest and not _is_option(rest[0], flags):
        return rest.pop(0)
    fact = f"{flag} needs a value"
    if metavar:
        *others, last = metavar.split("|")
        choices = last
        if others:
            choices = f"{', '.join(others)} or {last}"
        fact += f": {choices}"
    raise ConfigError(fact, hint=f"see {command} --help")


def _is_option(word: str, flags: Mapping[str, Any]) -> bool:
    name = word.partition("=")[0]
    return word == "--" or name in flags or our_option(name) in flags

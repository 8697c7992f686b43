"""The command line. Libraries that take time to import are imported inside the command that needs them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from edgellm import options
from edgellm.commandgroup import Commands, UsageError, renamed_usage_error
from edgellm.config import CHAT_MAX_TOKENS, CHAT_TEMPERATURE, CHAT_TOP_P, DEFAULT_MODEL, LoadSettings, Sampling, parse_size
from edgellm.console import terminal
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.quant import DEFAULT_BITS

INTERRUPTED = 130
EXAMPLE = "\b\nExample:\n  "
"""Begins what help says at its end; the first line forbids to break the others."""

USUAL, USUAL_LOAD = Sampling(), LoadSettings()

app = typer.Typer(cls=Commands, rich_markup_mode=None, pretty_exceptions_enable=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (the process's own where none is given), and return its exit code."""
    terminal.prepare_streams()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
    except EdgeLLMError as error:
        terminal.show_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        terminal.show_interrupted()
    return code


def _run(arguments: list[str]) -> int:
    try:
        return int(app(arguments or ["--help"], prog_name="edgellm", standalone_mode=False) or 0)
    except UsageError as error:
        raise renamed_usage_error(error) from error


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        terminal.write(f"edgellm {version('edgellm')}\n")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Language models on the machine in front of you, also those larger than its memory."""


@app.command(epilog=EXAMPLE + "edgellm chat mlx-community/Llama-3.2-1B-Instruct-4bit --memory 4GB")
def chat(
    model: options.Model = DEFAULT_MODEL,
    *,
    system: options.System = None,
    plain: Annotated[bool, typer.Option("--plain", help="Show answers as they are, not as markdown.")] = False,
    memory: options.Memory = None,
    context: options.Context = None,
    context_window: options.ContextWindow = None,
    threads: options.Threads = None,
    backend: options.Backend = USUAL_LOAD.backend,
    activations: options.Activations = USUAL_LOAD.activations,
    max_tokens: options.MaxTokens = CHAT_MAX_TOKENS,
    temperature: options.Temperature = CHAT_TEMPERATURE,
    top_p: options.TopP = CHAT_TOP_P,
    top_k: options.TopK = USUAL.top_k,
    min_p: options.MinP = USUAL.min_p,
    repetition_penalty: options.RepetitionPenalty = USUAL.repetition_penalty,
    seed: options.Seed = None,
    stop: options.Stop = None,
) -> None:
    """Talk to a model.

    Where standard input is no terminal, each of its lines is a turn, and only the answers go to standard output.
    """
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=tuple(stop or ()),
    )
    settings = LoadSettings(
        memory=memory,
        context=context,
        context_window=context_window,
        threads=threads,
        backend=backend,
        activations=cast(Any, activations),
    )
    _require_backend()
    from edgellm.console import screen
    from edgellm.console.answer import PlainAnswer, answer_view
    from edgellm.opening import looked_through, watched_load
    from edgellm.repl import Session, talk, talk_in_lines

    checkpoint, tokenizer = looked_through(model)

    if model == DEFAULT_MODEL:
        screen.say_bundled()
    with watched_load(model, checkpoint, tokenizer, settings) as llm:
        conversation = llm.chat(system=system, sampling=sampling)
        if terminal.is_terminal(sys.stdin):
            screen.greet(llm, model)
            talk(Session(conversation, partial(answer_view, plain=plain)))
        else:
            talk_in_lines(Session(conversation, PlainAnswer), sys.stdin)


@app.command(epilog=EXAMPLE + 'edgellm generate stories --prompt "Once upon a time" --max-tokens 100')
def generate(
    model: options.Model = DEFAULT_MODEL,
    *,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", metavar="TEXT", help="The text to go on from; - reads standard input.")
    ] = "",
    as_chat: Annotated[bool, typer.Option("--chat", help="Take the prompt as a turn of a conversation.")] = False,
    system: options.System = None,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="With --json: tokens and their log-probabilities.")] = False,
    json: options.Json = False,
    memory: options.Memory = None,
    context: options.Context = None,
    context_window: options.ContextWindow = None,
    threads: options.Threads = None,
    backend: options.Backend = USUAL_LOAD.backend,
    activations: options.Activations = USUAL_LOAD.activations,
    max_tokens: options.MaxTokens = USUAL.max_tokens,
    temperature: options.Temperature = USUAL.temperature,
    top_p: options.TopP = USUAL.top_p,
    top_k: options.TopK = USUAL.top_k,
    min_p: options.MinP = USUAL.min_p,
    repetition_penalty: options.RepetitionPenalty = USUAL.repetition_penalty,
    beams: Annotated[int, typer.Option(metavar="N", help="Sequences of a beam search; 1 is none.")] = USUAL.beams,
    seed: options.Seed = None,
    stop: options.Stop = None,
) -> None:
    """Continue a text."""
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        beams=beams,
        seed=seed,
        stop=tuple(stop or ()),
        logprobs=logprobs,
    )
    settings = LoadSettings(
        memory=memory,
        context=context,
        context_window=context_window,
        threads=threads,
        backend=backend,
        activations=cast(Any, activations),
    )
    if not prompt:
        raise ConfigError("there is no prompt", hint="give one with --prompt TEXT, or --prompt - to read standard input")
    if logprobs and not json:
        raise ConfigError("log-probabilities are printed as JSON", hint="add --json")
    if system and not as_chat:
        raise ConfigError("a system message needs a conversation", hint="add --chat")
    _require_backend()
    from edgellm.completion import complete
    from edgellm.opening import looked_through, watched_load

    checkpoint, tokenizer = looked_through(model)
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    if as_chat:
        messages = [{"role": "system", "content": system}] if system else []
        ids = tokenizer.apply_chat_template([*messages, {"role": "user", "content": text}])
    else:
        ids = tokenizer.encode(text)
    if settings.context is None:
        needed = min(len(ids) + max_tokens, checkpoint.config.max_position_embeddings)
        settings = replace(settings, context=max(1, needed))
    with watched_load(model, checkpoint, tokenizer, settings) as llm:
        complete(llm, ids, sampling, json=json)


@app.command(
    short_help="Make a model folder of any model.",
    epilog=EXAMPLE + "edgellm convert meta-llama/Llama-3.2-1B-Instruct ./llama-1b --bits 4",
)
def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A Hub id, or a folder or file in a format that is known.")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The model folder to be made.")],
    *,
    bits: Annotated[
        int | None,
        typer.Option(metavar="2|3|4|5|6|8|16", help="Bits of a weight; left out: 4, or as it is for a quantized source."),
    ] = None,
    group_size: Annotated[int | None, typer.Option(metavar="32|64|128", help="Weights that share a scale.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="float16|bfloat16|float32", help="What is not quantized; left out: as in the source."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is already there.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Measure and list the error of each quantized matrix.")] = False,
    json: options.Json = False,
) -> None:
    """Convert a model into a folder that edgellm and mlx-lm open; a conversion that was stopped goes on."""
    _require_backend()
    from edgellm import converters
    from edgellm.console import tables
    from edgellm.console.progress import conversion
    from edgellm.info import conversion_facts

    with conversion() as progress:
        made = converters.convert(
            source, destination, bits=bits, group_size=group_size, dtype=dtype, force=force, report=report, progress=progress
        )
    if json:
        terminal.write_json(conversion_facts(made))
    else:
        tables.show_conversion(made)


@app.command(
    short_help="Make a model of random weights, to measure a machine.",
    epilog=EXAMPLE + "edgellm synth llama-2-7b ./llama-7b --bits 4",
)
def synth(
    shape: Annotated[str, typer.Argument(metavar="SHAPE", help="A published model's: llama-2-7b, llama-3.2-1b, qwen3-8b, ...")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="The model folder to be made.")],
    *,
    bits: Annotated[int, typer.Option(metavar="2|3|4|5|6|8|16", help="Bits of a weight; 16 is unquantized.")] = DEFAULT_BITS,
    group_size: Annotated[int | None, typer.Option(metavar="32|64|128", help="Weights that share a scale.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="float16|bfloat16|float32", help="What is not quantized; left out: as published."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed makes the same weights.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is already there.")] = False,
    json: options.Json = False,
) -> None:
    """Make a model folder of a known shape with random weights, to measure a machine before anything is downloaded."""
    _require_backend()
    from edgellm.console import tables
    from edgellm.console.progress import conversion
    from edgellm.info import conversion_facts
    from edgellm.synth import synthesize

    with conversion() as progress:
        made = synthesize(
            shape, destination, bits=bits, group_size=group_size, dtype=dtype, seed=seed, force=force, progress=progress
        )
    if json:
        terminal.write_json(conversion_facts(made))
    else:
        tables.show_conversion(made)


@app.command(
    short_help="Show what a budget of memory buys.",
    epilog=EXAMPLE + "edgellm plan mlx-community/Meta-Llama-3.1-8B-Instruct-4bit --memory 4GB",
)
def plan(
    model: options.Model,
    *,
    memory: options.Memory = None,
    context: options.Context = None,
    context_window: options.ContextWindow = None,
    sim_ram: Annotated[str | None, typer.Option(metavar="SIZE", help="For a machine with so much memory: 8GB.")] = None,
    sim_disk: Annotated[str | None, typer.Option(metavar="RATE", help="For a machine with such a disk: 3GB/s.")] = None,
    json: options.Json = False,
) -> None:
    """Show what a model would do with a budget of memory, also before it is downloaded."""
    settings = LoadSettings(memory=memory, context=context, context_window=context_window)
    _require_backend()
    from edgellm.console import tables
    from edgellm.forecast import Elsewhere, forecast
    from edgellm.info import look_up

    elsewhere = Elsewhere(
        memory=parse_size(sim_ram) if sim_ram else None, disk=parse_size(sim_disk.removesuffix("/s")) if sim_disk else None
    )
    checkpoint, here = look_up(model)
    found = forecast(checkpoint, settings, elsewhere, here=here).as_dict()
    if json:
        terminal.write_json({"model": model, **found})
    else:
        tables.show_plan(found, name=model, measured=elsewhere == Elsewhere())


@app.command(epilog=EXAMPLE + "edgellm info stories")
def info(model: options.Model, *, json: options.Json = False) -> None:
    """Show the shape of a model, and what its parts weigh."""
    _require_backend()
    from edgellm.console import tables
    from edgellm.info import look_up, model_facts
    from edgellm.tokenizer import Tokenizer

    checkpoint, here = look_up(model)
    tokenizer = Tokenizer.from_folder(checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size) if here else None
    facts = model_facts(checkpoint, tokenizer)
    if json:
        terminal.write_json({"model": model, **facts})
    else:
        tables.show_model(facts)


@app.command(short_help="Look this machine over.", epilog=EXAMPLE + "edgellm doctor ~/models")
def doctor(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="A folder on the disk to be measured; left out: this one.")
    ] = None,
    *,
    json: options.Json = False,
) -> int:
    """Show what this machine is and how fast, and try whether models run right on it."""
    from edgellm.console.progress import trying
    from edgellm.console.report import show_diagnosis
    from edgellm.doctor import examine

    place = folder or Path()
    if not place.is_dir():
        raise ConfigError(f"there is no folder {place}")
    with trying() as begin:
        found = examine(place, begin)
    if json:
        terminal.write_json(found.as_dict())
    else:
        show_diagnosis(found)
    return 0 if found.passed else 1


def _require_backend() -> None:
    """Raise BackendError, which says what to install, where MLX cannot be imported."""
    import edgellm

    _ = edgellm.LLM

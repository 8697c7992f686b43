"""The commands that let a model say something: ``chat`` and ``generate``."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.device.require_mlx import require_backend
from edgellm.errors import ConfigError
from edgellm.settings import (
    BATCH,
    CHAT_MAX_TOKENS,
    CHAT_TEMPERATURE,
    CHAT_TOP_P,
    DEFAULT_MODEL,
    LoadSettings,
    Sampling,
)

PROMPT_LINES = "name a text file that has a prompt a line, or - for standard input"
USUAL, USUAL_LOAD = Sampling(), LoadSettings()


def chat(
    model: options.Model = DEFAULT_MODEL,
    *,
    system: options.System = None,
    go_on: Annotated[
        bool,
        typer.Option(
            "--continue", help="Take up the last conversation with this model; implies --cache."
        ),
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Show answers as they are, not as markdown.")
    ] = False,
    memory: options.Memory = None,
    context: options.Context = None,
    context_window: options.ContextWindow = None,
    kv_bits: options.KvBits = None,
    threads: options.Threads = None,
    backend: options.Backend = USUAL_LOAD.backend,
    activations: options.Activations = USUAL_LOAD.activations,
    speculate: options.Speculate = USUAL_LOAD.speculate,
    draft: options.Draft = None,
    cache: options.Cache = False,
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

    Where standard input is no terminal, each of its lines is a turn, and only the answers go to
    standard output.
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
        kv_bits=kv_bits,
        threads=threads,
        backend=backend,
        activations=cast(Any, activations),
        speculate=cast(Any, speculate),
        draft=draft,
        prompt_cache=cache or go_on,
    )
    require_backend()
    from edgellm.chat import require_chat_template
    from edgellm.cli.common.open_model import read_model, watched_load
    from edgellm.console import chat_view as screen
    from edgellm.console.answer_view import PlainAnswer, answer_view
    from edgellm.repl import last_chat as lastchat
    from edgellm.repl.repl import Session, talk, talk_in_lines

    checkpoint, tokenizer = read_model(model)
    require_chat_template(tokenizer, checkpoint.folder.path.name)
    if model == DEFAULT_MODEL:
        screen.say_bundled()
    with watched_load(model, checkpoint, tokenizer, settings) as llm:
        conversation = llm.chat(system=system, sampling=sampling)
        found = lastchat.go_on(conversation) if go_on else False
        if system:
            conversation.set_system(system)
        on_terminal = terminal.is_terminal(sys.stdin)
        try:
            if on_terminal:
                screen.greet(llm, model)
                if go_on:
                    screen.say_continued(conversation.messages if found else [])
                talk(Session(conversation, partial(answer_view, plain=plain)))
            else:
                talk_in_lines(Session(conversation, PlainAnswer), sys.stdin)
        finally:
            if on_terminal or go_on:
                lastchat.keep_chat(conversation)


def generate(
    model: options.Model = DEFAULT_MODEL,
    *,
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt", "-p", metavar="TEXT", help="The text to go on from; - reads standard input."
        ),
    ] = "",
    prompt_file: options.PromptFile = None,
    batch: options.Batch = BATCH,
    as_chat: Annotated[
        bool, typer.Option("--chat", help="Take the prompt as a turn of a conversation.")
    ] = False,
    system: options.System = None,
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="With --json: tokens and their log-probabilities.")
    ] = False,
    json: options.Json = False,
    memory: options.Memory = None,
    context: options.Context = None,
    context_window: options.ContextWindow = None,
    kv_bits: options.KvBits = None,
    threads: options.Threads = None,
    backend: options.Backend = USUAL_LOAD.backend,
    activations: options.Activations = USUAL_LOAD.activations,
    speculate: options.Speculate = USUAL_LOAD.speculate,
    draft: options.Draft = None,
    cache: options.Cache = False,
    max_tokens: options.MaxTokens = USUAL.max_tokens,
    temperature: options.Temperature = USUAL.temperature,
    top_p: options.TopP = USUAL.top_p,
    top_k: options.TopK = USUAL.top_k,
    min_p: options.MinP = USUAL.min_p,
    repetition_penalty: options.RepetitionPenalty = USUAL.repetition_penalty,
    beams: Annotated[
        int, typer.Option(metavar="N", help="Sequences of a beam search; 1 is none.")
    ] = USUAL.beams,
    seed: options.Seed = None,
    stop: options.Stop = None,
) -> None:
    """Continue a text, or each line of a file, side by side: then --json prints a document a line, as they end."""
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
        kv_bits=kv_bits,
        threads=threads,
        backend=backend,
        activations=cast(Any, activations),
        speculate=cast(Any, speculate),
        draft=draft,
        prompt_cache=cache,
    )
    if prompt and prompt_file:
        raise ConfigError("--prompt and --prompt-file are both given", hint="leave out one of them")
    if not prompt and not prompt_file:
        raise ConfigError(
            "there is no prompt",
            hint="give one with --prompt TEXT, or --prompt - to read standard input",
        )
    if batch < 1:
        raise ConfigError(
            f"--batch is {batch}; it must be at least 1",
            hint=f"leave it out for {BATCH} lines side by side",
        )
    if beams > 1 and prompt_file:
        raise ConfigError(
            "beam search does not run side by side", hint="use --prompt, or leave out --beams"
        )
    if logprobs and not json:
        raise ConfigError("log-probabilities are printed as JSON", hint="add --json")
    if system and not as_chat:
        raise ConfigError("a system message needs a conversation", hint="add --chat")
    require_backend()
    from edgellm.cli.common.open_model import read_model, watched_load
    from edgellm.cli.common.print_completions import complete, complete_all

    checkpoint, tokenizer = read_model(model)
    lines = (
        _lines(prompt_file)
        if prompt_file
        else {1: sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt}
    )
    texts = list(lines.values())
    if as_chat:
        messages = [{"role": "system", "content": system}] if system else []
        prompts = [
            tokenizer.apply_chat_template([*messages, {"role": "user", "content": text}])
            for text in texts
        ]
    else:
        prompts = [tokenizer.encode(text) for text in texts]
    if settings.context is None:
        needed = min(batch, len(prompts)) * (max(map(len, prompts)) + max_tokens)
        settings = replace(
            settings, context=max(1, min(needed, checkpoint.config.max_position_embeddings))
        )
    with watched_load(model, checkpoint, tokenizer, settings) as llm:
        if prompt_file:
            complete_all(
                llm,
                dict(zip(lines, prompts if as_chat else texts, strict=True)),
                sampling,
                at_once=batch,
                json=json,
            )
        else:
            complete(llm, prompts[0] if as_chat else texts[0], sampling, json=json)


def _lines(file: str) -> dict[int, str]:
    """The lines of a file that are not empty, by their number from 1. Raises ConfigError where there are none."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}", hint=PROMPT_LINES) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is no text in UTF-8", hint=PROMPT_LINES) from error
    lines = {number: line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    if not lines:
        raise ConfigError(f"{file} has no prompts", hint="write one a line")
    return lines

"""The commands that let a model say something: ``chat`` and ``generate``."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, cast

import typer

from edgellm import options
from edgellm.backend import require_backend
from edgellm.config import CHAT_MAX_TOKENS, CHAT_TEMPERATURE, CHAT_TOP_P, DEFAULT_MODEL, LoadSettings, Sampling
from edgellm.console import terminal
from edgellm.errors import ConfigError

USUAL, USUAL_LOAD = Sampling(), LoadSettings()


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
    require_backend()
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
    require_backend()
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

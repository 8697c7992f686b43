"""``edgellm generate``: continue a prompt, or each line of a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.grammar_options import GrammarText, JsonSchema, read_grammar
from edgellm.cli.common.prompt_words import model_and_text
from edgellm.cli.common.settings_options import expand_settings
from edgellm.cli.common.template_variables import parse_template_variables
from edgellm.device.require_mlx import require_backend
from edgellm.errors import ConfigError
from edgellm.files.bounded import read_given_text
from edgellm.files.given_path import given_path
from edgellm.setting_values import shown
from edgellm.settings import BATCH, DEFAULT_MODEL, LoadSettings, Sampling

if TYPE_CHECKING:
    from edgellm.chat_template.conversation import ConversationTemplate

MAX_LETTERS = 16 << 20
"""Characters of a file of prompts: some millions of tokens."""

PROMPT_FILE_HINT = "name a text file that has a prompt per line, or - for standard input"


@expand_settings
def generate(
    model: options.Model = DEFAULT_MODEL,
    text: Annotated[
        str,
        Argument(
            metavar="PROMPT",
            help="The text to continue, as with --prompt.",
            rich_help_panel=headings.PROMPT,
            show_default=False,
        ),
    ] = "",
    *,
    prompt: Annotated[
        str,
        Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="The text to continue; - reads standard input.",
            rich_help_panel=headings.PROMPT,
        ),
    ] = "",
    prompt_file: Annotated[
        str,
        Option(
            metavar="FILE",
            help="Continue each line of a file, each numbered; - reads standard input.",
            rich_help_panel=headings.PROMPT,
        ),
    ] = "",
    batch: Annotated[
        int,
        Option(
            metavar="N",
            help="With --prompt-file: maximum number of lines continued side by side.",
            rich_help_panel=headings.SPEED,
        ),
    ] = BATCH,
    as_chat: Annotated[
        bool,
        Option(
            "--chat",
            help="Take the prompt as a turn of a conversation; "
            "the reply is printed whole, with what the model thinks.",
            rich_help_panel=headings.PROMPT,
        ),
    ] = False,
    system: options.System = None,
    think: options.Think = None,
    template_variable: options.TemplateVariables = None,
    logprobs: Annotated[
        bool,
        Option(
            "--logprobs",
            help="With --json: tokens and their log-probabilities.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = False,
    json_schema: JsonSchema = None,
    grammar: GrammarText = None,
    json: options.Json = False,
    settings: Annotated[LoadSettings, options.LOAD_OPTIONS],
    sampling: Annotated[Sampling, options.SAMPLING_OPTIONS],
) -> None:
    """Continue a text, or the lines of a file side by side.

    With --prompt-file, --json prints one document per line, in the order in which they end. On a
    terminal, tokens and speed stand below the answer.
    """
    model, text = model_and_text(model, text, "edgellm generate")
    if text and (prompt or prompt_file):
        raise ConfigError(f"the prompt is given twice, also as {shown(text)}", hint="leave out one")
    prompt = prompt or text
    sampling = replace(sampling, logprobs=logprobs, grammar=read_grammar(json_schema, grammar))
    _check_options(prompt, prompt_file, batch, sampling, json=json)
    variables = parse_template_variables(template_variable)
    if system and not as_chat:
        raise ConfigError("a system message needs a conversation", hint="add --chat")
    if (variables or think is not None) and not as_chat:
        raise ConfigError("a chat template needs a conversation", hint="add --chat")
    require_backend()
    from edgellm.chat.reply_grammar import ReplyGrammars, special_tokens
    from edgellm.chat_template.conversation import ConversationTemplate
    from edgellm.cli.common.load_with_progress import open_with_progress, read_model
    from edgellm.cli.common.print_completions import print_completion, print_completions
    from edgellm.memory_plan.plan_checkpoint import sequences_that_fit

    checkpoint, tokenizer = read_model(model)
    texts = _read_prompts(prompt, prompt_file)
    prompts: Mapping[int, str | list[int]] = texts
    if as_chat:
        template = ConversationTemplate(tokenizer, think=think, variables=variables)
        turns = {line: _first_turn(template, text, system) for line, text in texts.items()}
        encoded = {
            line: tokenizer.encode(turn, add_special_tokens=False) for line, turn in turns.items()
        }
        prompts = encoded
        if sampling.grammar is not None:
            grammars = ReplyGrammars(
                markers=template.markers,
                special=special_tokens(tokenizer, tokenizer.end_ids(checkpoint.eos_token_ids)),
                may_think=think is not False,
            )
            # the template ends all of them in the same way
            turn = next(iter(turns.values()))
            sampling = replace(sampling, grammar=grammars.grammar(sampling, turn))
    else:
        # The ids are only counted: a prompt is given as text, so that the completion continues it.
        encoded = {line: tokenizer.encode(text) for line, text in texts.items()}
    settings = replace(settings, beams=sampling.beams)
    if settings.context is None:
        most = checkpoint.config.max_position_embeddings
        longest = max(len(ids) + sampling.new_tokens(len(ids), most) for ids in encoded.values())
        fitting = sequences_that_fit(
            checkpoint, settings, tokens=longest, most=min(batch, len(prompts))
        )
        context = min(fitting * longest, most)
        settings = replace(settings, context=context)
    with open_with_progress(model, checkpoint, tokenizer, settings) as llm:
        if prompt_file:
            print_completions(llm, prompts, sampling, at_once=batch, json=json)
        else:
            print_completion(llm, prompts[1], sampling, json=json)


def _check_options(
    prompt: str, prompt_file: str, batch: int, sampling: Sampling, *, json: bool
) -> None:
    """Refuse options that contradict each other. Raises ConfigError."""
    if prompt and prompt_file:
        raise ConfigError("--prompt and --prompt-file are both given", hint="leave out one of them")
    if not prompt and not prompt_file:
        raise ConfigError(
            "there is no prompt",
            hint='edgellm generate "Once upon a time", or --prompt - to read standard input',
        )
    if batch < 1:
        raise ConfigError(
            f"--batch is {batch}; it must be at least 1",
            hint=f"leave it out for {BATCH} lines side by side",
        )
    if sampling.beams > 1 and prompt_file:
        raise ConfigError(
            "beam search does not run in a batch", hint="use --prompt, or leave out --beams"
        )
    if sampling.logprobs and not json:
        raise ConfigError("log-probabilities are printed as JSON", hint="add --json")


def _first_turn(template: ConversationTemplate, text: str, system: str | None) -> str:
    """Return the prompt of a conversation's first turn."""
    messages = [{"role": "user", "content": text}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return template.render(messages)


def _read_prompts(prompt: str, prompt_file: str) -> dict[int, str]:
    """Return prompts by their line, from 1; the empty lines of a file are left out.

    Raises:
        ConfigError: the file cannot be read, or has no prompts.
    """
    if not prompt_file:
        if prompt == "-":
            prompt = sys.stdin.read().removesuffix("\n")
        return {1: prompt}
    lines = {}
    for number, line in enumerate(_read_text(prompt_file).split("\n"), 1):
        if line.strip():
            lines[number] = line
    if not lines:
        raise ConfigError(f"{prompt_file} has no prompts", hint="write one per line")
    return lines


def _read_text(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    return read_given_text(given_path(file), MAX_LETTERS, hint=PROMPT_FILE_HINT)

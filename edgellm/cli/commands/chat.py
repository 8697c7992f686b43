"""``edgellm chat``: talk to a model, on the terminal or line by line in a script."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Annotated, cast

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.grammar_options import GrammarText, JsonSchema, read_grammar
from edgellm.cli.common.prompt_words import model_and_text
from edgellm.cli.common.settings_options import expand_settings
from edgellm.cli.common.template_variables import parse_template_variables
from edgellm.cli.common.values import one_of
from edgellm.console.streams import is_terminal
from edgellm.device.require_mlx import require_backend
from edgellm.setting_values import choice
from edgellm.settings import (
    CHAT_MAX_TOKENS,
    CHAT_TEMPERATURE,
    CHAT_TOP_P,
    DEFAULT_MODEL,
    LoadSettings,
    Sampling,
)

if TYPE_CHECKING:
    from edgellm.chat.overflow import Overflow

CHAT_SAMPLING = options.SAMPLING_OPTIONS.without("beams").with_defaults(
    max_tokens=CHAT_MAX_TOKENS, temperature=CHAT_TEMPERATURE, top_p=CHAT_TOP_P
)


@expand_settings
def chat(
    model: options.Model = DEFAULT_MODEL,
    text: Annotated[
        str,
        Argument(
            metavar="MESSAGE",
            help="The first message; the conversation goes on after the answer.",
            rich_help_panel=headings.PROMPT,
            show_default=False,
        ),
    ] = "",
    *,
    system: options.System = None,
    think: options.Think = None,
    template_variable: options.TemplateVariables = None,
    continued: Annotated[
        bool,
        Option(
            "--continue",
            help="Continue the last conversation with this model; implies --cache.",
            rich_help_panel=headings.PROMPT,
        ),
    ] = False,
    json_schema: JsonSchema = None,
    grammar: GrammarText = None,
    overflow: Annotated[
        str,
        Option(
            metavar="drop_oldest|error",
            help="When the context is full: drop the oldest messages, or stop with an error.",
            rich_help_panel=headings.PROMPT,
            autocompletion=one_of("drop_oldest|error"),
        ),
    ] = "drop_oldest",
    plain: Annotated[
        bool,
        Option(
            "--plain",
            help="Show answers as they are, not as markdown.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = False,
    settings: Annotated[LoadSettings, options.LOAD_OPTIONS],
    sampling: Annotated[Sampling, CHAT_SAMPLING],
) -> None:
    """Talk to a model.

    Where standard input is not a terminal, each of its lines is a turn, and only the answers go to
    standard output. Thinking is shown as it comes, and then folded into a line.
    """
    model, text = model_and_text(model, text, "edgellm chat")
    choice("--overflow", overflow, ("drop_oldest", "error"))
    variables = parse_template_variables(template_variable)
    sampling = replace(sampling, grammar=read_grammar(json_schema, grammar))
    if continued:
        settings = replace(settings, prompt_cache=True)
    require_backend()
    from edgellm.chat import require_chat_template
    from edgellm.chat_template.conversation import ConversationTemplate
    from edgellm.cli.common.load_with_progress import open_with_progress, read_model
    from edgellm.console.completion_view import PlainView, completion_view
    from edgellm.repl import chat_view
    from edgellm.repl.last_chat import continue_last_chat, save_last_chat
    from edgellm.repl.repl import Session, run_lines, run_terminal

    checkpoint, tokenizer = read_model(model)
    require_chat_template(tokenizer, checkpoint.folder.path.name)
    # refused before anything is loaded
    ConversationTemplate(tokenizer, think=think, variables=variables)
    if model == DEFAULT_MODEL:
        chat_view.show_bundled_note()
    with open_with_progress(model, checkpoint, tokenizer, settings) as llm:
        conversation = llm.chat(
            system,
            sampling,
            think=think,
            overflow=cast("Overflow", overflow),
            chat_template_kwargs=variables,
        )
        found_last_chat = continued and continue_last_chat(conversation)
        if system:  # given now, it goes before that of the conversation that was found
            conversation.set_system(system)
        interactive = is_terminal(sys.stdin)
        try:
            if interactive:
                chat_view.show_greeting(llm, model)
                if continued:
                    chat_view.show_continued(conversation.messages if found_last_chat else [])
                session = Session(conversation, partial(completion_view, plain=plain))
                run_terminal(session, first=text)
            else:
                first = [text] if text else []
                run_lines(Session(conversation, PlainView), chain(first, sys.stdin))
        finally:
            if interactive or continued:
                save_last_chat(conversation)

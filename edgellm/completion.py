"""One completion on the command line: shown as it comes, or printed whole as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from edgellm.config import Sampling
from edgellm.console.activity import Activity
from edgellm.console.answer import PlainAnswer, SilentAnswer
from edgellm.console.terminal import write_json
from edgellm.info import completion_facts
from edgellm.llm import LLM


def complete(llm: LLM, prompt: Sequence[int], sampling: Sampling, *, json: bool) -> None:
    """Continue a prompt on standard output. Raises EdgeLLMError."""
    activity = Activity(lambda: llm.bytes_read)
    stream = llm.stream(prompt, sampling, on_prefill=activity.prefill)
    tokens = []
    with SilentAnswer(activity) if json else PlainAnswer(activity) as view:
        for token in stream:
            activity.token()
            tokens.append(token)
            view.add(token.text)
    if json:
        write_json(completion_facts(tokens, llm.plan, logprobs=sampling.logprobs))

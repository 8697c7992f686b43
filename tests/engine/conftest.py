"""Models that several tests of the engine share."""

import pytest
from support.counting import paged_settings
from support.engines import seen

import edgellm
from edgellm.converters import convert


@pytest.fixture(scope="session")
def models(tiny_folder, tmp_path_factory):
    """The models of ``KINDS``, each loaded once, and what they answer to a prompt alone."""
    opened, alone = {}, {}

    def folder(kind):
        if not kind.startswith("int8"):
            return tiny_folder("mistral-window" if kind == "window" else "llama-2", seed=1)
        made = tmp_path_factory.getbasetemp() / "batch-int8"
        if not made.exists():
            convert(tiny_folder("llama-3.1", seed=1), made, bits=4)
        return made

    def load(kind):
        if kind not in opened:
            keywords = {
                "memory": "500MB",
                "activations": "auto" if kind.startswith("int8") else "float",
            }
            if kind.endswith("paged"):
                keywords |= paged_settings(folder(kind), context=200)
            if kind == "sliding":
                keywords |= {"context_window": 7}
            opened[kind] = edgellm.load(folder(kind), prefill_chunk=32, **keywords)
            assert opened[kind].plan.resident != kind.endswith("paged")
        return opened[kind]

    def answer(kind, prompt, sampling):
        key = kind, tuple(prompt), sampling
        if key not in alone:
            alone[key] = seen(load(kind).generate(prompt, sampling).tokens)
        return alone[key]

    yield load, answer
    for llm in opened.values():
        llm.close()

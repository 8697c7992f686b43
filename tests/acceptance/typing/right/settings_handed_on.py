from typing import Unpack

import edgellm
from edgellm import LLM, SamplingFields


def first_line(llm: LLM, prompt: str, **settings: Unpack[SamplingFields]) -> str:
    settings["stop"] = "\n"
    return llm.generate(prompt, **settings).text


def brief() -> SamplingFields:
    return {"max_tokens": 16, "temperature": 0.2}


with edgellm.load("stories") as llm:
    print(first_line(llm, "Once upon a time", seed=3, top_k=40))
    print(first_line(llm, "Once upon a time", **brief()))

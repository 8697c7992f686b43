from typing import assert_never

import edgellm
from edgellm import FinishReason


def told(reason: FinishReason) -> str:
    match reason:
        case "stop":
            return "done"
        case "length":
            return "cut off"
        case "cancelled" | "timeout":
            return "given up"
        case "error":
            return "failed"
        case _:
            assert_never(reason)


with edgellm.load("stories") as llm:
    print(told(llm.generate("Once upon a time", max_tokens=4).finish_reason))

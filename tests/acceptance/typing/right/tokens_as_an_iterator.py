from collections.abc import Iterable, Iterator

import edgellm
from edgellm import Token


def sentences(tokens: Iterable[Token]) -> Iterator[str]:
    text = ""
    for token in tokens:
        text += token.text
        if text.endswith((".", "!", "?")):
            yield text.strip()
            text = ""
    if text:
        yield text.strip()


with edgellm.load("stories") as llm:
    print(list(sentences(llm.stream("Once upon a time"))))

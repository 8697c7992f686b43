import threading

import edgellm
from edgellm import Stream


def show(stream: Stream) -> None:
    with stream:
        for token in stream:
            print(token.text, end="")


with edgellm.load("stories") as llm:
    stream = llm.stream("Once upon a time", max_tokens=1000)
    thread = threading.Thread(target=show, args=(stream,))
    thread.start()
    stream.cancel()
    thread.join()
    print(stream.completion.finish_reason)

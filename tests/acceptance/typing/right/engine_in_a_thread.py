import threading
from collections import defaultdict

import edgellm


def run(engine: edgellm.Engine, texts: dict[int, list[str]]) -> None:
    while engine.wait(timeout=1.0):
        for number, token in engine.step():
            texts[number].append(token.text)


with edgellm.load("stories") as llm, llm.engine(max_queue=100) as engine:
    texts: dict[int, list[str]] = defaultdict(list)
    first = engine.submit("Once upon a time", max_tokens=8, timeout=30, n=2)
    thread = threading.Thread(target=run, args=(engine, texts))
    thread.start()
    thread.join()
    print("".join(texts[first]), engine.stats.tokens_per_second, engine.kv_bytes.budget)

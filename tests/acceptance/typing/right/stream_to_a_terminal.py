import edgellm

with edgellm.load("stories") as llm:
    for token in llm.stream("Once upon a time", max_tokens=32):
        print(token.text, end="", flush=True)
        if token.stats is not None:
            print(token.stats.decode_tokens_per_second)

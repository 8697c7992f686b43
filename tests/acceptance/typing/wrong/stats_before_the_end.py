import edgellm

with edgellm.load("stories") as llm:
    for token in llm.stream("Once upon a time"):
        print(token.stats.completion_tokens)  # refused

import edgellm

with edgellm.load("stories") as llm:
    completion = llm.generate("Once upon a time", logprobs=True)
    print(sum(token.logprob for token in completion.tokens))  # refused

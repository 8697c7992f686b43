import math

import edgellm

with edgellm.load("stories") as llm:
    completion = llm.generate("Once upon a time", logprobs=True, top_logprobs=3)
    logprobs = [token.logprob for token in completion.tokens if token.logprob is not None]
    print(math.exp(-sum(logprobs) / len(logprobs)), completion.ids)
    for token in completion.tokens:
        print([(top.text, top.logprob) for top in token.top_logprobs])

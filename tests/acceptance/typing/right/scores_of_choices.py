import edgellm

CHOICES = [" mat", " moon"]

with edgellm.load("stories") as llm:
    scores = llm.score([("The cat sat on the", choice) for choice in CHOICES])
    best = max(zip(scores, CHOICES, strict=True), key=lambda pair: pair[0].logprob)
    print(best[1], llm.embed(CHOICES, pooling="last").shape)

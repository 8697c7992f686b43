import edgellm

PROMPTS = ["Once upon a time", "The dog"]
SAMPLINGS = [edgellm.Sampling(seed=seed, temperature=1.0) for seed in range(len(PROMPTS))]

with edgellm.load("stories", edgellm.LoadSettings(memory=10**9), threads=2) as llm:
    texts = dict.fromkeys(range(len(PROMPTS)), "")
    for place, token in llm.stream_batch(PROMPTS, SAMPLINGS, max_tokens=8):
        texts[place] += token.text
    print(texts)

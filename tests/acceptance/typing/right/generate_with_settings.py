import edgellm

SAMPLING = edgellm.Sampling(temperature=0.8, top_p=0.95, seed=1)

with edgellm.load("stories", memory="4GB", context=1024, kv_bits=8) as llm:
    completion = llm.generate("Once upon a time", SAMPLING, max_tokens=16, stop=["\n\n"])
    print(completion.text, completion.finish_reason, completion.stats.completion_tokens)

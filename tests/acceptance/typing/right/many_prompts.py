import edgellm

PROMPTS = ["Once upon a time", "The dog", "Tom was"]

with edgellm.load("stories") as llm:
    for prompt, completion in zip(
        PROMPTS, llm.generate_batch(PROMPTS, max_tokens=16, at_once=2), strict=True
    ):
        if completion.error is not None:
            print(prompt, completion.error.hint)
        else:
            print(prompt + completion.text)

import edgellm

with edgellm.load("stories") as llm:
    completion = llm.generate("Once upon a time", max_tokens=4)
    if completion.finish_reason == "lenght":  # refused
        print("cut off")

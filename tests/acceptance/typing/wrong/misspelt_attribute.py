import edgellm

with edgellm.load("stories") as llm:
    print(llm.generate("Once upon a time", max_tokens=4).txt)  # refused

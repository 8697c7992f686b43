import edgellm

with edgellm.load("stories") as llm:
    for token in llm.stream("Once upon a time", max_new_tokens=16):  # refused
        print(token.text)

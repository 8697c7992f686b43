import edgellm

with edgellm.load("stories") as llm:
    print("Once upon a time" + llm.stream("Once upon a time"))  # refused

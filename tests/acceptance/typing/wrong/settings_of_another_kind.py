import edgellm

with edgellm.load("stories") as llm:
    llm.generate("Once upon a time", edgellm.LoadSettings(context=512))  # refused

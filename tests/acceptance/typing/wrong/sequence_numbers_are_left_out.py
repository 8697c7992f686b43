import edgellm

with edgellm.load("stories") as llm, llm.engine() as engine:
    engine.submit("Once upon a time", max_tokens=4)
    while not engine.idle:
        for token in engine.step():
            print(token.text)  # refused

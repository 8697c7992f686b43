import edgellm

with edgellm.load("stories") as llm, llm.engine(max_queue=8) as engine:
    engine.submit("Once upon a time", timeout="5s")  # refused

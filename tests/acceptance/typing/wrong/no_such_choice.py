import edgellm

with edgellm.load("stories", activations="int4") as llm:  # refused
    print(llm.plan)

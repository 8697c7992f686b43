import edgellm

with edgellm.load("stories", memroy="1GB") as llm:  # refused
    print(llm.plan)

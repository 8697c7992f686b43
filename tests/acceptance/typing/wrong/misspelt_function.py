import edgellm

llm = edgellm.laod("stories")  # refused

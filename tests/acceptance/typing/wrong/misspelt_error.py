import edgellm

try:
    llm = edgellm.load("stories", memory="1MB")
except edgellm.MemoryBugetError as error:  # refused
    print(error)

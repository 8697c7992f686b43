import edgellm

settings: edgellm.SamplingFields = {"top_p": 0.9, "temprature": 0.7}  # refused
with edgellm.load("stories") as llm:
    print(llm.generate("Once upon a time", **settings).text)

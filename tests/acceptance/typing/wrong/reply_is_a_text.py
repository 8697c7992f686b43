import edgellm

with edgellm.load("stories") as llm, llm.chat() as chat:
    print(chat.send("Hello").text)  # refused

import edgellm

with edgellm.load("stories") as llm:
    chat = llm.chat(overflow="drop_oldest", max_tokens=64)
    chat.send("Tell me a story.")
    other = chat.fork()
    print(other.regenerate(temperature=1.0))
    removed = chat.undo()
    print([message["role"] for message in removed], len(chat.messages))

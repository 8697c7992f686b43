import sys

import edgellm

with edgellm.load("stories") as llm, llm.chat(system="Answer briefly.") as chat:
    for line in sys.stdin:
        for token in chat.stream(line.rstrip(), temperature=0.7):
            print(token.thinking + token.text, end="", flush=True)
    chat.save("chat.json")

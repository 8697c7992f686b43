from pathlib import Path

import edgellm

FOLDER = Path.home() / "models" / "story"

with edgellm.load(FOLDER, draft=FOLDER.with_name("draft"), prompt_cache=Path("cache")) as llm:
    chat = llm.chat()
    if Path("chat.json").exists():
        chat.load(Path("chat.json"))
    print(chat.send("And then?"))
    chat.save("chat.json")

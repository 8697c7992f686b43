import edgellm


async def answer(llm: edgellm.AsyncLLM) -> str:
    text = ""
    for token in llm.stream("Once upon a time", max_tokens=4):  # refused
        text += token.text
    return text

import asyncio

import edgellm


async def main() -> None:
    async with await edgellm.AsyncLLM.load("stories") as llm:
        completion = llm.generate("Once upon a time", max_tokens=4)
        print(completion.text)  # refused


asyncio.run(main())

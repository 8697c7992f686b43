import asyncio

import edgellm


async def main() -> None:
    llm = edgellm.AsyncLLM.load("stories")
    async for token in llm.stream("Once upon a time"):  # refused
        print(token.text)


asyncio.run(main())

import asyncio

from edgellm import AsyncLLM, Completion


async def read(llm: AsyncLLM, prompt: str) -> Completion:
    async with llm.stream(prompt, max_tokens=16, timeout=30) as stream:
        async for token in stream:
            print(token.text, end="")
        return stream.completion


async def main() -> None:
    async with await AsyncLLM.load("stories", memory="1GB", max_queue=100) as llm:
        first, second = await asyncio.gather(read(llm, "Once upon a time"), read(llm, "The dog"))
        third = await llm.generate("Tom was", temperature=0.7)
        print(first.text, second.text, third.text)


asyncio.run(main())

import asyncio
from asyncio import StreamReader, StreamWriter

from edgellm import AsyncLLM, EdgeLLMError, QueueFullError


async def main() -> None:
    async with await AsyncLLM.load("stories", max_queue=1000) as llm:

        async def serve(reader: StreamReader, writer: StreamWriter) -> None:
            prompt = (await reader.readline()).decode()
            try:
                async for token in llm.stream(prompt, max_tokens=64, timeout=60):
                    writer.write(token.text.encode())
                    await writer.drain()
            except QueueFullError:
                writer.write(b"try again later")
            except EdgeLLMError as error:
                writer.write(str(error).encode())
            writer.close()

        server = await asyncio.start_server(serve, "localhost", 8000)
        await server.serve_forever()


asyncio.run(main())

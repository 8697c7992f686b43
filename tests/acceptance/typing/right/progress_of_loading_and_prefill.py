import edgellm
from edgellm import Progress


def loading(done: int, total: int) -> None:
    print(f"{done / total:.0%}")


def prefilling(progress: Progress) -> None:
    print(f"{progress.prefill_done} of {progress.prompt_tokens} tokens")


with edgellm.load("stories", progress=loading) as llm:
    llm.generate("Once upon a time", on_prefill=prefilling, reuse_cache=True, max_tokens=4)

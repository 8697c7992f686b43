import edgellm


def show(fraction: float) -> None:
    print(f"{fraction:.0%}")


llm = edgellm.load("stories", progress=show)  # refused

"""Headings of a command's options in help, in the order in which they stand there."""

MODEL = "Model"
PROMPT = "Prompt"
QUANTIZATION = "Quantization"
MERGING = "Adapters and differences"
MEMORY = "Memory"
TRAINING = "Training"
SAMPLING = "Sampling"
SPEED = "Speed"
SERVER = "Server"
TESTS = "Tests"
JUDGE = "Judge"
OUTPUT = "Output"
OTHER = "Options"

ORDER = (
    MODEL,
    PROMPT,
    QUANTIZATION,
    MERGING,
    SERVER,
    MEMORY,
    TRAINING,
    SAMPLING,
    SPEED,
    TESTS,
    JUDGE,
    OUTPUT,
    OTHER,
)


def place(heading: str) -> int:
    """Return where a heading stands in help; those that are not in the list come first."""
    if heading in ORDER:
        return ORDER.index(heading)
    return -1

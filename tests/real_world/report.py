"""The table of what was found."""

import importlib.metadata


def lines(row, seconds):
    """The lines of a row."""
    yield (
        f"{verdict(row):5} {row.name:44.44} {row.kind:10.10} {row.oracle:12} "
        f"ids {pair(row.ids):>7} back {pair(row.decoded):>6} chats {pair(row.templates):>4} "
        f"logits {figure(row.logits):>8} stored {figure(row.stored):>8} greedy {pair(row.greedy):>4} "
        f"{seconds:5.1f} s"
    )
    for note in row.notes:
        yield f"      {note}"
    for wrong in row.wrong[:6]:
        yield f"      DIFFERS: {wrong[:2000]}"


def verdict(row):
    if row.right:
        return "right"
    return "WRONG"


def pair(numbers):
    if numbers is None:
        return "-"
    return f"{numbers[0]}/{numbers[1]}"


def figure(number):
    if number is None:
        return "-"
    return f"{number:.1e}"


def versions_of(peers):
    """Ours, MLX's, and those of the oracles that were asked."""
    ours = {name: importlib.metadata.version(name) for name in ("edgellm", "mlx")}
    return ours | peers.versions()

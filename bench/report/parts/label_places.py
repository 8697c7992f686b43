"""Places for the labels of points, where they cover as little else as they can."""

from __future__ import annotations

from dataclasses import dataclass

LETTER = 6.6
"""About the width of a letter, in a drawing's units."""

ABOVE, BELOW = 11.0, 3.0
"""How far letters reach from the line that they stand on."""

GAP = 5.0
"""Between a point and its label."""

STEPS = (8.0, 22.0, 36.0, 50.0)
"""Distances above and below a point, tried from the nearest."""


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a drawing that something covers; down is more."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, other: Box) -> bool:
        """Return whether all of another box lies inside."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom

    def overlap(self, other: Box) -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


def place_label(
    text: str, place: tuple[float, float], radius: float, *, area: Box, taken: list[Box]
) -> tuple[float, float]:
    """Return where a point's label begins, and the line that it stands on.

    Args:
        text: the label.
        place: of the point's middle.
        radius: of the point.
        area: the drawing, inside which labels stay where they can.
        taken: what is covered already; the label is added.
    """
    x, y = place
    width = LETTER * len(text)
    right, left, middle = x + radius + GAP, x - radius - GAP - width, x - width / 2
    places = [(right, y + 4.5), (left, y + 4.5)]
    for step in STEPS:
        up, down = y - radius - step, y + radius + step + 6
        places += [(at, base) for base in (up, down) for at in (middle, right - 12, left + 12)]
    boxes = [Box(at, base - ABOVE, at + width, base + BELOW) for at, base in places]
    inside = [box for box in boxes if area.holds(box)] or boxes[:1]
    chosen = min(inside, key=lambda box: sum(box.overlap(other) for other in taken))
    taken.append(chosen)
    return max(0.0, chosen.left), chosen.bottom - BELOW

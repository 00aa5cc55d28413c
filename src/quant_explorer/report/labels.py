"""Places for labels in a plot, so that none covers another, a marker or the frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DIRECTIONS = 16
# What a line through a label costs, as covered square pixels, and by how many squares it is followed.
CROSSING, SQUARES = 3000.0, 24
STEPS = (4.0, 12.0, 24.0, 40.0, 60.0, 85.0, 115.0)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Area that both cover, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the rectangle that is nearest to a point."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return (self.right - self.left) * (self.top - self.bottom)


@dataclass(frozen=True)
class Anchor:
    """A marker to label: its centre and radius, and its label's width and height, in pixels."""

    x: float
    y: float
    radius: float
    width: float
    height: float


def place_labels(
    anchors: Sequence[Anchor], obstacles: Sequence[Box], frame: Box, *, leaders: bool = False
) -> tuple[Box, ...]:
    """Return a box for every anchor's label, greedily: the nearest place that covers nothing.

    `obstacles` are boxes to keep free beside the markers; when no place is free, the one that covers the
    least is taken. With `leaders` the lines from markers to labels keep clear of other labels too, where
    they can. Deterministic.
    """
    markers = [
        Box(one.x - one.radius, one.y - one.radius, one.x + one.radius, one.y + one.radius) for one in anchors
    ]
    taken = [*markers, *obstacles]
    boxes: list[Box] = []
    lines: list[list[Box]] = []
    for anchor in anchors:

        def cross(one: Box, anchor: Anchor = anchor) -> int:
            through = sum(any(map(other.overlap, _leader(anchor, one))) for other in boxes)
            return through + sum(any(map(one.overlap, line)) for line in lines)

        box = _cheapest(_candidates(anchor), taken, frame, cross if leaders else None)
        boxes.append(box)
        lines.append(_leader(anchor, box))
        taken.append(box)
    return tuple(boxes)


def _cheapest(
    candidates: Sequence[Box], taken: Sequence[Box], frame: Box, crossings: Callable[[Box], int] | None
) -> Box:
    """Return the first, which is the nearest, of the candidates that cost least."""
    reach = Box(
        min(one.left for one in candidates),
        min(one.bottom for one in candidates),
        max(one.right for one in candidates),
        max(one.top for one in candidates),
    )
    near = [other for other in taken if reach.overlap(other)]
    best, least = candidates[0], math.inf
    for one in candidates:
        # Rounded, so that a sliver of rounding error is no reason to go further away.
        cost = round(_cost(one, near, frame), 3)
        if crossings is not None and cost < least:
            cost += CROSSING * crossings(one)
        if cost < least:
            best, least = one, cost
        if not cost:
            break
    return best


def _leader(anchor: Anchor, box: Box) -> list[Box]:
    """Return small squares along the line from a marker to its label."""
    x, y = box.nearest(anchor.x, anchor.y)
    shares = [number / SQUARES for number in range(SQUARES)]
    places = [(anchor.x + share * (x - anchor.x), anchor.y + share * (y - anchor.y)) for share in shares]
    return [Box(across - 1, up - 1, across + 1, up + 1) for across, up in places]


def _candidates(anchor: Anchor) -> list[Box]:
    found = []
    for step in STEPS:
        for number in range(DIRECTIONS):
            angle = 2 * math.pi * number / DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            # The label's nearest edge, not its centre, keeps the distance.
            x = anchor.x + across * (anchor.radius + step) + (across - 1) / 2 * anchor.width
            y = anchor.y + up * (anchor.radius + step) + (up - 1) / 2 * anchor.height
            found.append(Box(x, y, x + anchor.width, y + anchor.height))
    return found


def _cost(box: Box, taken: Sequence[Box], frame: Box) -> float:
    outside = box.area - box.overlap(frame)
    return 10 * outside + sum(box.overlap(other) for other in taken)

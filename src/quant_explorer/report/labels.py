"""Places for labels in a plot, so that none covers another, a marker or the frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

DIRECTIONS = 16
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


def place_labels(anchors: Sequence[Anchor], obstacles: Sequence[Box], frame: Box) -> tuple[Box, ...]:
    """Return a box for every anchor's label, greedily: the nearest place that covers nothing.

    `obstacles` are boxes to keep free beside the markers; when no place is free, the one that covers the
    least is taken. Deterministic.
    """
    markers = [
        Box(one.x - one.radius, one.y - one.radius, one.x + one.radius, one.y + one.radius) for one in anchors
    ]
    taken = [*markers, *obstacles]
    boxes = []
    for anchor in anchors:
        # Rounded, so that a sliver of rounding error is no reason to go further away; the first is nearest.
        candidates = _candidates(anchor)
        costs = [round(_cost(one, taken, frame), 3) for one in candidates]
        box = candidates[costs.index(min(costs))]
        boxes.append(box)
        taken.append(box)
    return tuple(boxes)


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

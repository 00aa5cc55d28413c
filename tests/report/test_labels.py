from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from quant_explorer.report.labels import Anchor, Box, place_labels

FRAME = Box(0, 0, 1000, 600)


def test_labels_of_close_points_do_not_overlap() -> None:
    anchors = [Anchor(500 + 3 * number, 300 + 2 * number, 10, 120, 14) for number in range(8)]
    boxes = place_labels(anchors, [], FRAME)
    assert all(one.overlap(other) == 0 for one, other in combinations(boxes, 2))
    markers = [Box(one.x - 10, one.y - 10, one.x + 10, one.y + 10) for one in anchors]
    assert all(box.overlap(marker) == 0 for box in boxes for marker in markers)
    assert all(box.overlap(FRAME) == box.area for box in boxes)


def test_a_free_point_is_labelled_close_by() -> None:
    (box,) = place_labels([Anchor(500, 300, 10, 100, 12)], [], FRAME)
    assert (box.left, box.bottom) == (514, 294)


def test_labels_avoid_obstacles_and_the_edge() -> None:
    wall = Box(505, 0, 1000, 600)
    (box,) = place_labels([Anchor(500, 300, 4, 100, 12)], [wall], FRAME)
    assert box.overlap(wall) == 0
    (corner,) = place_labels([Anchor(995, 595, 4, 100, 12)], [], FRAME)
    assert corner.overlap(FRAME) == corner.area


def crossed(anchors: Sequence[Anchor], boxes: Sequence[Box]) -> int:
    """Count the lines from markers to labels that run through another's label."""
    count = 0
    for anchor, own in zip(anchors, boxes, strict=True):
        x, y = own.nearest(anchor.x, anchor.y)
        along = [(anchor.x + t * (x - anchor.x) / 50, anchor.y + t * (y - anchor.y) / 50) for t in range(51)]
        count += sum(
            any(other.left < x < other.right and other.bottom < y < other.top for x, y in along)
            for other in boxes
            if other is not own
        )
    return count


def test_leaders_keep_clear_of_other_labels() -> None:
    anchors = [Anchor(500 + 15 * number, 300 - 8 * number, 4, 100, 14) for number in range(3)]
    only_above = [Box(0, 0, 1000, 330)]
    assert crossed(anchors, place_labels(anchors, only_above, FRAME)) > 0
    assert crossed(anchors, place_labels(anchors, only_above, FRAME, leaders=True)) == 0


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 600)), max_size=12))
def test_every_anchor_gets_one_box_of_its_label_size(places: list[tuple[float, float]]) -> None:
    boxes = place_labels([Anchor(x, y, 5, 80, 12) for x, y in places], [], FRAME)
    assert len(boxes) == len(places)
    assert all(abs(box.right - box.left - 80) < 1e-6 for box in boxes)

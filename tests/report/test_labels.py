from __future__ import annotations

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


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 600)), max_size=12))
def test_every_anchor_gets_one_box_of_its_label_size(places: list[tuple[float, float]]) -> None:
    boxes = place_labels([Anchor(x, y, 5, 80, 12) for x, y in places], [], FRAME)
    assert len(boxes) == len(places)
    assert all(abs(box.right - box.left - 80) < 1e-6 for box in boxes)

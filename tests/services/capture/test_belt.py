"""What the belt makes of spans, where pictures are too slow a way to get at it."""

from __future__ import annotations

from services.capture.belt import Belt, Span

LENGTH_PX, PERIOD_NS = 160, 40_000_000
Picture = list[tuple[float, float]]


def tickets(pictures: list[Picture]) -> list[tuple[int, bool]]:
    """Pictures of (back, front) -> (number of the picture, was the one before nearer?) for each crossing."""
    belt, found = Belt(LENGTH_PX, min_area_px=100), []
    for number, picture in enumerate(pictures):
        spans = [Span(back, front, 30 * (front - back)) for back, front in picture]
        found += [(number, nearer) for nearer in belt.step(spans, (number + 1) * PERIOD_NS)]
    return found


def moving(front_px: float, length_px: float, speed_px: float, count: int) -> list[Picture]:
    """One part alone; its front is at ``front_px`` in the first picture."""
    fronts_px = [front_px + number * speed_px for number in range(count)]
    inside = [(max(0.0, f - length_px), min(float(LENGTH_PX), f)) for f in fronts_px]
    return [[(back, front)] if front > 2 and back < LENGTH_PX - 2 else [] for back, front in inside]


def together(*tracks: list[Picture]) -> list[Picture]:
    return [sorted(span for picture in pictures for span in picture) for pictures in zip(*tracks, strict=True)]


def test_belt_chooses_the_nearer_of_two_pictures() -> None:
    assert tickets(moving(10, 40, 20, 12)) == [(5, False)]  # centres 70, 90: this one is as near
    assert tickets(moving(14, 40, 20, 12)) == [(5, True)]  # centres 74, 94


def test_belt_counts_a_part_that_passes_the_middle_between_two_pictures_unseen() -> None:
    first = moving(20, 30, 53, 6)
    second = moving(20 - 4 * 53 + 110, 30, 53, 6)
    second[2] = second[3] = []  # it is hidden when it enters
    assert len(tickets(together(first, moving(-100, 30, 53, 6)))) == 2
    assert len(tickets(first)) == 1


def test_belt_does_not_count_a_part_twice_that_falls_to_pieces_for_a_moment() -> None:
    whole = moving(10, 60, 10, 20)
    for number in (7, 9, 11):
        [(back, front)] = whole[number]
        middle = (back + front) / 2
        whole[number] = [(back, middle - 4), (middle + 4, front)]
    assert len(tickets(whole)) == 1


def test_belt_counts_two_parts_that_touch_in_the_middle() -> None:
    pictures = together(moving(60, 40, 10, 16), moving(10, 40, 10, 16))
    for number in (6, 7, 8, 9, 10):
        pictures[number] = [(pictures[number][0][0], pictures[number][-1][1])]
    assert len(tickets(pictures)) == 2


def test_belt_counts_a_part_that_is_hidden_while_it_crosses() -> None:
    pictures = moving(10, 40, 10, 16)
    pictures[8] = pictures[9] = []
    assert len(tickets(pictures)) == 1


def test_belt_finds_its_way_again_after_a_picture_full_of_light() -> None:
    parts = together(*(moving(60 - 100 * number, 60, 20, 60) for number in range(10)))
    dazzled = [*parts[:12], [(0.0, float(LENGTH_PX))], *parts[13:]]
    undisturbed, disturbed = tickets(parts), tickets(dazzled)
    assert [ticket for ticket in disturbed if ticket[0] > 25] == [ticket for ticket in undisturbed if ticket[0] > 25]


def test_belt_counts_nothing_that_appears_beyond_the_middle_on_a_standing_belt() -> None:
    assert tickets([[], [(100, 140)], [(100, 140)], [(101, 140)], [(100, 141)]]) == []

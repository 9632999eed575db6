"""The best of a grid without all of its values."""

import math

import pytest

from qsmnet.evaluate.descent import next_value


def descended(errors):
    """Positions in the order in which they are tried."""
    known = [None] * len(errors)
    order = []
    while (index := next_value(known)) is not None:
        assert known[index] is None
        known[index] = errors[index]
        order.append(index)
    return order


@pytest.mark.parametrize("length", range(1, 8))
def test_the_lowest_is_found_wherever_it_is(length):
    for lowest in range(length):
        order = descended([abs(i - lowest) + 0.3 * (i > lowest) for i in range(length)])
        assert lowest in order
        neighbours = {lowest - 1, lowest + 1} & set(range(length))
        assert neighbours <= set(order)


def test_few_are_tried_when_the_middle_is_best():
    assert sorted(descended([4, 2, 1, 2, 4])) == [1, 2, 3]


def test_nothing_is_asked_of_an_empty_grid():
    assert next_value([]) is None


def test_what_fails_is_stepped_over():
    assert descended([1, 2, math.inf, 4, 5]) == [2, 1, 0]
    assert 4 in descended([5, 4, math.inf, 2, 1])
    assert sorted(descended([math.inf] * 3)) == [0, 1, 2]

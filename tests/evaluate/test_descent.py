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


@pytest.mark.parametrize("failed", [math.inf, math.nan])
def test_a_value_that_fails_is_the_worst(failed):
    assert 0 in descended([1, 2, failed, 4, 5])
    assert descended([failed] * 3)

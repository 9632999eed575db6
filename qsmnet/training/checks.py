"""Settings of the data, checked before a bank is built or a file is read."""

import math
from collections.abc import Sequence


def check_counts(least: int, **counts: object) -> None:
    """Refuse what is no whole number of at least ``least``.

    Raises
    ------
    ValueError
        With the setting.
    """
    for name, value in counts.items():
        if type(value) is not int or value < least:
            problem = f"data.{name} must be a whole number of at least {least}, got {value}"
            raise ValueError(problem)


def check_switch(**switches: object) -> None:
    """Refuse what is neither true nor false.

    Raises
    ------
    ValueError
        With the setting.
    """
    for name, value in switches.items():
        if type(value) is not bool:
            raise ValueError(f"data.{name} must be true or false, got {value}")


def check_range(name: str, values: object, least: float) -> None:
    """Refuse what is not two numbers from ``least``, the first no larger than the second.

    Raises
    ------
    ValueError
        With the setting.
    """
    pair = list(values) if isinstance(values, Sequence) else []
    numbers = len(pair) == 2 and all(isinstance(v, (int, float)) for v in pair)
    if not numbers or not least <= pair[0] <= pair[1] < math.inf:
        problem = f"data.{name} must be two numbers from {least:g}, low and high, got {values}"
        raise ValueError(problem)


def check_cut(
    crop: Sequence[int] | None,
    field_of_view: Sequence[float] | None,
    batch_size: int,
    alike: bool,
) -> None:
    """Refuse crops and fields of view that no item could have.

    Parameters
    ----------
    crop, field_of_view, batch_size
        As for `qsmnet.training.data.simulated_pairs`.
    alike
        Whether all items have one shape.

    Raises
    ------
    ValueError
        With the setting.
    """
    if crop is not None and field_of_view is not None:
        raise ValueError("a field of view takes the place of a crop: set data.crop=null")
    if crop is not None:
        sizes = list(crop) if isinstance(crop, Sequence) else []
        if len(sizes) != 3 or not all(type(n) is int and n > 0 for n in sizes):
            raise ValueError(f"data.crop must be three whole numbers from 1, got {crop}")
    if field_of_view is not None:
        check_range("field_of_view", field_of_view, 1.0)
    if batch_size != 1 and not alike:
        raise ValueError("items differ in shape: set data.batch_size=1")

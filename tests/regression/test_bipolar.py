"""Echoes read to and fro: the field is that of a scan read in one direction."""

from dataclasses import replace

import pytest
import torch
from test_field_mapping import field_map, field_scores

from qsmnet.cli.compose import compose
from qsmnet.phase.echoes import unwrap_echoes
from qsmnet.phase.scale import wrap

_CONSTANT, _ACROSS = 0.7, 4.0  # rad, of the even echoes less the odd ones; along the readout


def to_and_fro(scan, axis, constant, across):
    """Scan whose even echoes are ahead of the odd ones by a line along ``axis``, in rad."""
    size = scan.magnitude.shape[1 + axis]
    view = [-1 if each == axis else 1 for each in range(3)]
    ahead = constant + across * torch.linspace(-0.5, 0.5, size).view(view)
    signs = torch.tensor([(-1.0) ** echo for echo in range(len(scan.echo_times))])
    phase = wrap(scan.wrapped_phase + 0.5 * signs.view(-1, 1, 1, 1) * ahead)
    return replace(scan, wrapped_phase=phase)


def field_of(head, scan, offset):
    """Scores of the field that is found after ``offset`` has been removed."""
    scan = compose("offset", offset)(scan, head.mask)
    unwrapped = unwrap_echoes(scan, head.mask, compose("unwrap", "romeo"))
    return field_scores(compose("fit", "line")(scan, unwrapped, head.mask).field, head)


@pytest.mark.parametrize("axis", [0, 1])
def test_field_is_that_of_one_direction(axis, small_head):
    one_way = field_map(small_head, "mcpc3ds", "romeo", "line")
    scan = to_and_fro(small_head.as_scan(), axis, _CONSTANT, _ACROSS)
    corrected = field_of(small_head, scan, "bipolar")
    as_it_is = field_of(small_head, scan, "mcpc3ds")
    for score in ("nrmse", "near_air"):
        assert corrected[score] < 1.1 * one_way[score]
        assert as_it_is[score] > 10 * one_way[score]

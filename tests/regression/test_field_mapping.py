"""Wrapped echoes to the total field: no method gets worse than its bar."""

import math

import pytest
import torch
from scipy import ndimage
from scores import assert_no_worse, bars

from qsmnet.cli.compose import available, compose
from qsmnet.phase.align import align_echoes
from qsmnet.phase.echoes import unwrap_echoes
from qsmnet.phase.scale import wrap
from qsmnet.simulate.tissue import AIR
from qsmnet.units import radians_per_ppm

_BARS = bars("field_mapping")
_FULL = ["mcpc3ds", "each echo alone"]
OFFSET, UNWRAP, FIT = "mcpc3ds", "romeo", "line"
# each method beside the defaults of the other two stages; bipolar data are another scan
WAYS = {
    **{name: (name, UNWRAP, FIT) for name in available("offset") if name != "bipolar"},
    **{name: (OFFSET, name, FIT) for name in available("unwrap")},
    **{name: (OFFSET, UNWRAP, name) for name in available("fit")},
}


def near_air(head):
    """Brain within 10 mm of air."""
    distance = ndimage.distance_transform_edt(
        head.segmentation.numpy() != AIR, sampling=head.geometry.voxel_size
    )
    return torch.from_numpy(distance <= 10) & head.mask


def field_scores(field, head):
    """NRMSE in % and root mean square in ppb about the median error, in brain and near air."""
    scores = {}
    for name, region in (("", head.mask), ("near_air", near_air(head))):
        error, truth = (field - head.total_field)[region], head.total_field[region]
        error, truth = error - error.median(), truth - truth.mean()
        scores[name or "nrmse"] = 100 * float(error.norm() / truth.norm())
        scores[f"ppb_{name}".rstrip("_")] = 1e3 * float(error.square().mean().sqrt())
    return scores


def wrong_turns(unwrapped, head):
    """Share of voxels in % with an echo whose turns from the first are not those of the truth."""
    turns = torch.round((unwrapped - head.unwrapped_phase)[:, head.mask] / (2 * math.pi))
    turns = (turns - turns[:1])[1:]
    wrong = (turns != turns.median(1, keepdim=True).values).any(0)
    return 100 * float(wrong.double().mean())


def field_map(head, offset, unwrap, fit):
    """Scores of one way from wrapped phase to the total field."""
    scan = compose("offset", offset)(head.as_scan(), head.mask)
    unwrapped = unwrap_echoes(scan, head.mask, compose("unwrap", unwrap))
    scores = field_scores(compose("fit", fit)(scan, unwrapped, head.mask).field, head)
    removed = wrap(head.phase - scan.wrapped_phase)
    return {**scores, "wrong_turns": wrong_turns(unwrapped + removed, head)}


def each_echo_alone(head, unwrap):
    """Scores of what is common: each echo unwrapped in space, a line without weights."""
    times = tuple(head.protocol.echo_times)
    unwrapped = align_echoes(
        compose("unwrap", unwrap)(head.as_scan(), head.mask), times, head.mask, voxelwise=False
    )
    centred = torch.tensor(times) - sum(times) / len(times)
    slope = torch.einsum("e,exyz->xyz", centred / centred.square().sum(), unwrapped)
    scores = field_scores(slope / radians_per_ppm(1.0, head.protocol.b0), head)
    return {**scores, "wrong_turns": wrong_turns(unwrapped, head)}


def test_every_method_has_its_bar():
    assert set(_BARS["small"]) == {*WAYS, "each echo alone"}
    assert set(_BARS["full"]) == set(_FULL)


@pytest.mark.parametrize("name", WAYS)
def test_small_head(name, small_head):
    assert_no_worse(field_map(small_head, *WAYS[name]), _BARS["small"][name])


@pytest.mark.parametrize("unwrap", ["romeo", "best_path"])
def test_near_air_less_than_half_of_what_is_common(unwrap, small_head):
    common = each_echo_alone(small_head, unwrap)
    ours = field_map(small_head, OFFSET, UNWRAP, FIT)
    assert ours["near_air"] < 0.5 * common["near_air"]
    assert ours["nrmse"] < 0.5 * common["nrmse"]
    assert ours["wrong_turns"] < 0.5 * common["wrong_turns"]
    if unwrap == UNWRAP:
        bar = _BARS["small"]["each echo alone"]
        assert {name: common[name] for name in bar} == pytest.approx(bar, rel=0.02)


@pytest.mark.slow
def test_full_head(full_head):
    """The defaults, in ppb too, and how far they are below what is common."""
    ours = field_map(full_head, OFFSET, UNWRAP, FIT)
    common = each_echo_alone(full_head, UNWRAP)
    assert_no_worse(ours, _BARS["full"]["mcpc3ds"])
    assert common == pytest.approx(_BARS["full"]["each echo alone"], rel=0.02)
    assert ours["ppb_near_air"] < 0.5 * common["ppb_near_air"]
    assert ours["ppb"] < 0.5 * common["ppb"]

"""Scores of single stages, on a small head: what is perfect, what is off, what is left out."""

import math
from dataclasses import replace

import pytest
import torch

from qsmnet.cli.compose import compose
from qsmnet.errors import UsageError
from qsmnet.evaluate.heads import Condition, Heads, Scene, load_head
from qsmnet.evaluate.stages import (
    Mapped,
    map_echoes_alone,
    map_field,
    score_chi,
    score_local,
    score_mapping,
    wrong_turns,
)
from qsmnet.phase.scale import wrap
from qsmnet.phase.unwrap_best_path import BestPathUnwrap
from qsmnet.simulate.head.protocol import Protocol
from qsmnet.simulate.head.simulator import HeadSimulator
from qsmnet.volumes import LocalField, Susceptibility, TotalField

TINY = Protocol((32, 40, 36), (6.0, 6.0, 6.0), 3.0, (0.003, 0.006, 0.009), 0.03, 15.0)
PLAIN = Condition("plain", "tiny")
BLEED = Condition("bleed", "tiny", ({"chi": 1.0, "radius": 6.0},))


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    return Heads(compose("simulator", "head"), {"tiny": TINY}, seed=1, cache=folder)


@pytest.fixture(scope="module")
def scene(heads):
    return Scene(heads.get(3, "choose", PLAIN), erosion=12.0, margin=2)


@pytest.fixture
def undrawn(monkeypatch):
    """No head may be rendered."""

    def fail(*_):
        raise RuntimeError("rendered")

    monkeypatch.setattr(HeadSimulator, "render", fail)


def test_a_head_is_rendered_once(heads, scene, undrawn):
    kept = heads.get(3, "choose", PLAIN)
    assert torch.equal(kept.phase, scene.head.phase)
    assert kept.record == scene.head.record
    assert kept.protocol.echo_times == TINY.echo_times


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"protocols": {"tiny": replace(TINY, snr=50.0)}}],
)
def test_a_file_of_another_head_is_not_taken(heads, scene, undrawn, change):
    assert scene is not None
    with pytest.raises(RuntimeError, match="rendered"):
        replace(heads, **change).get(3, "choose", PLAIN)


def test_a_file_of_another_split_or_lesion_is_not_taken(heads, scene, undrawn):
    kept = heads.cache / "tiny_procedural-3_plain.pt"
    assert load_head(kept).record["split"] == "choose"
    with pytest.raises(RuntimeError, match="rendered"):
        heads.get(3, "test", PLAIN)
    (heads.cache / "tiny_procedural-3_lesions.pt").write_bytes(kept.read_bytes())
    with pytest.raises(RuntimeError, match="rendered"):
        heads.get(3, "choose", BLEED)


def test_a_folder_with_fewer_maps(heads, tmp_path):
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(UsageError, match="has no map 3"):
        replace(heads, labels=tmp_path).get(3, "choose", PLAIN)


def head_scan(scene):
    return scene.head.as_scan()


def test_removed_offset_is_no_turn(scene):
    head = scene.head
    scan = head_scan(scene)
    # a smoothed offset is not the true one
    removed = head.phase_offset + 0.5
    without = replace(scan, wrapped_phase=wrap(scan.wrapped_phase - removed))
    total = TotalField(head.total_field, head.mask, head.geometry)
    mapped = Mapped(without, head.unwrapped_phase - removed, total)
    assert score_mapping(scene, mapped)["wrong"] == 0
    off = Mapped(without, head.unwrapped_phase - removed + 2 * math.pi * (head.chi > 0), total)
    assert score_mapping(scene, off)["wrong"] > 10


def test_offset_and_fit_are_stages(scene):
    def offset(scan, mask):
        assert torch.equal(mask, scene.head.mask)
        return replace(scan, wrapped_phase=scan.wrapped_phase + 0.0)

    def fit(scan, unwrapped, mask):
        return TotalField(scan.wrapped_phase[0], mask, scan.geometry)

    scan = head_scan(scene)
    mapped = map_field(scan, scene.head.mask, BestPathUnwrap(), offset, fit)
    assert mapped.scan is not scan
    assert torch.equal(mapped.total.field, scan.wrapped_phase[0])


def test_truth_maps_without_error(scene):
    head = scene.head
    total = TotalField(head.total_field + 0.3, head.mask, head.geometry)
    shifted = (
        head.unwrapped_phase + 2 * math.pi * torch.tensor([0.0, -1.0, 3.0])[:, None, None, None]
    )
    scores = score_mapping(scene, Mapped(head_scan(scene), shifted, total))
    assert scores["wrong"] == scores["wrong_near_air"] == 0
    assert scores["nrmse"] < 1e-3
    assert scores["nrmse_near_air"] < 1e-3


def test_turns_are_counted(scene):
    where = torch.zeros_like(scene.head.mask)
    where[tuple(scene.head.mask.nonzero()[::10].T)] = True
    off = scene.head.unwrapped_phase.clone()
    off[1] += 2 * math.pi * where
    assert torch.equal(wrong_turns(off, scene.head)[1], where)
    total = TotalField(scene.head.total_field, scene.head.mask, scene.head.geometry)
    share = 100 * float(where.sum() / scene.head.mask.sum()) / len(TINY.echo_times)
    assert score_mapping(scene, Mapped(head_scan(scene), off, total))["wrong"] == pytest.approx(
        share, rel=1e-4
    )


def test_field_error_is_relative_to_the_field(scene):
    head = scene.head
    middle = head.total_field[head.mask].mean()
    half = TotalField(middle + 0.5 * (head.total_field - middle), head.mask, head.geometry)
    scores = score_mapping(scene, Mapped(head_scan(scene), head.unwrapped_phase, half))
    assert scores["nrmse"] == pytest.approx(50, abs=2)


def test_brain_beside_air_is_a_part_of_the_brain(scene):
    assert 0 < int(scene.beside_air.sum()) < int(scene.head.mask.sum())
    assert not (scene.beside_air & ~scene.head.mask).any()


def test_weighted_line_beats_echoes_alone(scene):
    scan, mask = scene.head.as_scan(), scene.head.mask
    errors = [
        score_mapping(scene, mapping(scan, mask, BestPathUnwrap()))["nrmse"]
        for mapping in (map_field, map_echoes_alone)
    ]
    assert errors[0] < errors[1]


def local_of(scene, field, support=None):
    return LocalField(field, scene.head.mask, scene.head.geometry, field_support=support)


def test_true_local_field_has_no_error(scene):
    scores = score_local(scene, local_of(scene, scene.head.local_field))
    assert scores["nrmse"] < 1e-4
    assert scores["slope"] == pytest.approx(1)
    assert scores["kept"] == scores["coverage"] == 100


def test_unknown_local_field_counts_as_zero(scene):
    half = scene.head.mask.clone()
    half[:16] = False
    scores = score_local(scene, local_of(scene, scene.head.local_field, half))
    assert 20 < scores["kept"] < 80
    assert 50 < scores["nrmse"] < 90


def test_true_chi_has_no_error(scene):
    inside = Susceptibility(scene.head.chi * scene.head.mask + 3.0, scene.head.mask)
    scores = score_chi(scene, inside, whole=True)
    assert scores["nrmse"] < 1e-3
    assert scores["nrmse_inner"] < 1e-3
    assert scores["xsim"] > 0.999
    assert scores["slope"] == pytest.approx(1)
    boxed = Susceptibility(inside.chi[scene.box], inside.mask[scene.box])
    quick = score_chi(scene, boxed, detailed=False)
    assert quick.keys() == {"nrmse", "xsim", "slope"}
    assert quick["nrmse"] < 1e-3


def test_fields_have_the_stated_noise(scene):
    exact, given = scene.head.total_field, scene.total_field()
    ratio = ((given.field - exact) / scene.head.noise)[scene.head.mask]
    assert float(ratio.std()) == pytest.approx(1, abs=0.05)
    # what is told is of magnitudes with noise
    told = (given.noise / scene.head.noise)[scene.head.mask]
    assert float(told.mean()) == pytest.approx(1, abs=0.02)
    assert 0 < float(told.std()) < 0.1
    local = scene.local_field()
    assert local.field.shape == scene.head.mask[scene.box].shape
    assert int(local.mask.sum()) == int(scene.head.mask.sum())
    rest = (local.field - scene.head.local_field[scene.box])[local.mask]
    assert torch.allclose(rest, (given.field - exact)[scene.head.mask], atol=1e-6)

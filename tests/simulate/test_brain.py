"""Procedural brains: anatomy, contrast, and the same brain on any grid."""

import numpy as np
import pytest
import torch

from qsmnet.simulate import tissue
from qsmnet.simulate.brain import Brain
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.overlays import Lesions, Texture, Vessels

NUCLEI = (
    tissue.CAUDATE,
    tissue.PUTAMEN,
    tissue.PALLIDUM,
    tissue.THALAMUS,
    tissue.RED_NUCLEUS,
    tissue.NIGRA,
    tissue.DENTATE,
)
GRID = Grid((64, 80, 64), (1.0, 1.0, 1.0))
STRAIGHT = np.eye(3).tolist()


def plain(**settings):
    """Brains of tissue alone: no veins, lesions, texture or eroded mask."""
    nothing = {
        "vessels": Vessels(count=(0, 0)),
        "lesions": Lesions(probability=0.0),
        "texture": Texture(strength=(0.0, 0.0)),
        "erosion": 0,
        "random_contrast": 0.0,
        "margin": (1.08, 1.3),
    }
    return Brain(**nothing | settings)


def draw(source, seed=0, grid=GRID):
    record = source.draw(np.random.default_rng(seed), grid)
    # the sagittal sinus is drawn apart from the veins
    record["vessels"]["veins"] = record["vessels"]["veins"][: source.vessels.count[1]]
    return record


@pytest.fixture(scope="module")
def rendered():
    source = plain()
    record = draw(source)
    return record, source.render(record, GRID)


def test_every_tissue_is_there(rendered):
    _, phantom = rendered
    labels = set(phantom.segmentation[phantom.mask].unique().tolist())
    assert {*NUCLEI, tissue.WHITE_MATTER, tissue.GREY_MATTER, tissue.CSF} <= labels
    assert not phantom.segmentation[~phantom.mask].any()


def test_volumes_are_a_brain_s(rendered):
    _, phantom = rendered
    counts = phantom.segmentation.flatten().bincount(minlength=17) / phantom.mask.sum()
    # more white and less grey matter than a head has: the sheet is folded, but thin
    assert 0.5 < counts[tissue.WHITE_MATTER] < 0.8
    assert 0.08 < counts[tissue.GREY_MATTER] < 0.35
    assert 0.1 < counts[tissue.CSF] < 0.3
    assert counts[tissue.THALAMUS] > counts[tissue.RED_NUCLEUS] > 0


def test_tissue_has_the_susceptibility_of_the_record(rendered):
    record, phantom = rendered
    for label in (tissue.WHITE_MATTER, tissue.THALAMUS, tissue.PUTAMEN, tissue.CAUDATE):
        inside = phantom.chi[phantom.segmentation == label]
        assert float(inside.median()) == pytest.approx(record["chi"][str(label)], abs=0.003)
    low, high = min(record["chi"].values()), max(record["chi"].values())
    assert low - 1e-6 <= float(phantom.chi.min()) <= float(phantom.chi.max()) <= high + 1e-6


def test_contrast_is_tissue_s_or_random():
    record = draw(plain())
    assert all(low <= record["chi"][str(k)] <= high for k, (low, high) in tissue.RANGES.items())
    random = [draw(plain(random_contrast=1.0), seed)["chi"].values() for seed in range(20)]
    assert np.std([v for values in random for v in values]) == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("seed", range(8))
def test_whole_brain_lies_inside_of_the_grid(seed):
    grid = Grid((32, 40, 32), (1.5, 1.4, 1.6))
    mask = plain().render(draw(plain(), seed, grid), grid).mask
    faces = [mask.select(axis, end) for axis in range(3) for end in (0, -1)]
    assert sum(int(face.sum()) for face in faces) == 0
    assert 0.15 < float(mask.float().mean()) < 0.7


def test_part_of_a_brain_fills_the_grid():
    grid = Grid((24, 24, 24), (1.0, 1.0, 1.0))
    source = plain(whole=0.0)
    records = [draw(source, seed, grid) for seed in range(6)]
    assert all(0.7 <= record["placement"]["scale"] <= 1.1 for record in records)
    shares = [float(source.render(record, grid).mask.float().mean()) for record in records]
    assert np.median(shares) > 0.7


# a vein thinner than a voxel is drawn half a voxel wide, so that few veins agree across resolutions
@pytest.mark.parametrize(
    ("source", "least"),
    [(plain(texture=Texture()), 0.93), (Brain(lesions=Lesions(probability=0.0), erosion=0), 0.85)],
    ids=["tissue", "veins"],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_record_at_two_resolutions_is_one_brain(source, least, seed):
    coarse = Grid((32, 40, 32), (2.0, 2.0, 2.0))
    record = draw(source, seed, coarse)
    small, large = source.render(record, coarse), source.render(record, GRID)
    averaged = torch.nn.functional.avg_pool3d(large.chi[None], 2)[0]
    both = torch.stack([averaged[small.mask], small.chi[small.mask]])
    assert float(torch.corrcoef(both)[0, 1]) > least
    share = float(large.mask.float().mean()) / float(small.mask.float().mean())
    assert share == pytest.approx(1, rel=0.03)


def test_nuclei_are_mirrored():
    source = plain()
    record = draw(source, 2)
    record["warp"]["amplitude"] = 0.0
    record["placement"]["rotation"] = STRAIGHT
    labels = source.render(record, GRID).segmentation
    for nucleus in NUCLEI:
        assert (labels == nucleus).any()
        assert torch.equal(labels == nucleus, (labels == nucleus).flip(0))


def test_the_warp_breaks_the_symmetry(rendered):
    thalamus = rendered[1].segmentation == tissue.THALAMUS
    assert not torch.equal(thalamus, thalamus.flip(0))


def test_a_brain_of_few_voxels_keeps_its_mask():
    source, grid = plain(), Grid((10, 12, 10), (1.0, 1.0, 1.0))
    record = draw(source, 0, grid) | {"erosion": 3}
    assert source.render(record, grid).mask.any()


def test_mask_is_eroded():
    source, grid = plain(), Grid((32, 40, 32), (2.0, 2.0, 2.0))
    record = draw(source, 0, grid)
    masks = [source.render(record | {"erosion": n}, grid).mask for n in (0, 1, 3)]
    assert masks[0].sum() > masks[1].sum() > masks[2].sum() > 0
    assert not (masks[1] & ~masks[0]).any()


def test_veins_are_painted_as_blood():
    source = plain(vessels=Vessels(count=(25, 25), radius=(1.5, 2.5)))
    record = source.draw(np.random.default_rng(0), GRID)
    assert len(record["vessels"]["veins"]) in (25, 26)
    phantom = source.render(record, GRID)
    blood = phantom.chi[phantom.segmentation == tissue.BLOOD]
    assert len(blood) > 100
    strongest = max(vein["chi"] for vein in record["vessels"]["veins"])
    assert 0.15 < float(blood.median()) < 0.45
    assert float(blood.max()) <= strongest + 1e-5


def lesion(kind, chi, rim_chi, radius=8.0, rim=0.0):
    # in the white matter of the right hemisphere, in the brain's mm
    return {
        "kind": kind,
        "centre": [30.0, -25.0, 28.0],
        "radii": [radius] * 3,
        "rotation": STRAIGHT,
        "chi": chi,
        "rim_chi": rim_chi,
        "rim": rim,
    }


def test_calcification_is_painted_and_labelled():
    source = plain()
    record = draw(source)
    record["lesions"] = {"lesions": [lesion("calcification", -2.0, -2.0)]}
    phantom = source.render(record, GRID)
    inside = phantom.segmentation == tissue.CALCIFICATION
    assert float(phantom.chi.min()) == pytest.approx(-2)
    expected = 4 / 3 * np.pi * (8 * record["placement"]["scale"]) ** 3
    assert int(inside.sum()) == pytest.approx(expected, rel=0.15)


def test_haemorrhage_keeps_its_label_and_has_a_rim():
    source = plain()
    record = draw(source)
    before = source.render(record, GRID)
    record["lesions"] = {"lesions": [lesion("haemorrhage", 0.5, 1.5, 10.0, 3.0)]}
    after = source.render(record, GRID)
    assert torch.equal(before.segmentation, after.segmentation)
    assert float(after.chi.max()) == pytest.approx(1.5, abs=0.1)
    changed = after.chi[(after.chi - before.chi).abs() > 0.1]
    assert ((changed - 0.5).abs() < 1e-4).sum() > 50
    assert ((changed - 1.5).abs() < 1e-4).sum() > 50


def test_lesions_keep_to_their_ranges():
    source, radii = Lesions(probability=1.0), (66.0, 84.0, 60.0)
    drawn = [source.draw(np.random.default_rng(s), radii)["lesions"] for s in range(40)]
    assert all(1 <= len(lesions) <= 6 for lesions in drawn)
    every = [each for lesions in drawn for each in lesions]
    assert {each["kind"] for each in every} == {
        "calcification",
        "haemorrhage",
        "microbleed",
        "plaque",
    }
    for each in every:
        if each["kind"] == "calcification":
            assert -3.5 <= each["chi"] <= -0.2
        if each["kind"] == "haemorrhage":
            assert 0.3 <= each["rim_chi"] <= 2
            assert each["chi"] <= each["rim_chi"]
    assert Lesions(probability=0.0).draw(np.random.default_rng(0), radii) == {"lesions": []}


def test_texture_is_as_strong_as_the_record_says():
    points = GRID.points()
    chi = torch.zeros(GRID.shape)
    Texture().render({"seeds": [1, 2], "strength": [0.01, 0.0]}, points, chi)
    # interpolation between lattice points lowers it
    assert 0.4 * 0.01 < float(chi.std()) < 1.1 * 0.01

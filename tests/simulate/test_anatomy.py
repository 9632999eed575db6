"""Brains of label maps: in place, of the right susceptibility, decided by their record."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_maps import write_maps

from qsmnet.cli.compose import compose
from qsmnet.errors import InconsistentError, UnreadableError, UsageError
from qsmnet.simulate import tissue
from qsmnet.simulate.anatomy import Anatomy, with_maps
from qsmnet.simulate.contrast import IRON_RATES, PARTS, Contrast
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.head.brain_map import load_brain
from qsmnet.simulate.head.known_maps import SHA256, origin_of
from qsmnet.simulate.head.tissues import TISSUES, tissue_of
from qsmnet.simulate.overlays import Lesions, Texture, Vessels

GRID = Grid((28, 32, 30), (2.0, 2.2, 2.1))


@pytest.fixture(scope="module")
def table():
    return compose("simulator", "anatomy").sources["anatomy"].table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_maps(tmp_path_factory.mktemp("maps"))


@pytest.fixture(scope="module")
def anatomy(folder, table):
    return Anatomy(str(folder), table, whole=1.0)


@pytest.fixture(scope="module")
def plain(anatomy):
    """Tissue alone, in its ranges."""
    return replace(
        anatomy,
        contrast=Contrast(random=0.0),
        vessels=Vessels(count=(0, 0), sinus=0.0),
        lesions=Lesions(probability=0.0),
        texture=Texture(strength=(0.0, 0.0)),
    )


def draw(anatomy, seed, grid=GRID):
    return anatomy.draw(np.random.default_rng(seed), grid)


def test_a_record_decides_everything(anatomy):
    record = draw(anatomy, 1)
    assert record == draw(anatomy, 1)
    one, other = anatomy.render(record, GRID), anatomy.render(record, GRID)
    assert torch.equal(one.chi, other.chi)
    assert torch.equal(one.segmentation, other.segmentation)
    assert not torch.equal(one.chi, anatomy.render(draw(anatomy, 2), GRID).chi)


@pytest.mark.parametrize("seed", range(6))
def test_a_whole_brain_lies_in_the_grid(anatomy, seed):
    mask = anatomy.render(draw(anatomy, seed), GRID).mask
    assert 0.08 < float(mask.float().mean()) < 0.6
    faces = [mask.select(axis, end) for axis in range(3) for end in (0, -1)]
    # the warp may push a few voxels out
    assert sum(int(face.sum()) for face in faces) < 0.02 * int(mask.sum())


def test_windows_lie_in_the_brain(anatomy):
    narrow = Grid((16, 16, 16), (0.6, 0.6, 0.6))
    windows = replace(anatomy, whole=0.0)
    assert all(bool(windows.render(draw(windows, i, narrow), narrow).mask.any()) for i in range(8))


def test_a_slender_grid_holds_no_whole_brain(anatomy):
    slab = Grid((32, 32, 32), (0.6, 0.6, 1.8))
    assert not any(draw(anatomy, i, slab)["placement"]["whole"] for i in range(5))


def test_tissue_has_the_susceptibility_of_its_part(plain):
    record = draw(plain, 3)
    placement = {**record["placement"], "whole": False, "scale": 1.0, "centre": [20.0, 0.0, 5.0]}
    phantom = plain.render({**record, "placement": placement}, Grid((40, 30, 30), (1.5, 1.4, 1.6)))
    found = {}
    for part in ("putamen", "white matter", "thalamus"):
        label = TISSUES[part].label
        inside = (phantom.segmentation == label)[None, None].float()
        core = torch.nn.functional.avg_pool3d(inside, 3, 1, 1)[0, 0] > 0.999
        if bool(core.any()):
            found[part] = phantom.chi[core]
    assert set(found) == {"putamen", "white matter", "thalamus"}
    for part, values in found.items():
        # the map has 3 mm, so that little of a nucleus is free of its surface
        expected = record["contrast"]["chi"][part]
        assert float(values.median()) == pytest.approx(expected, abs=0.012)


def test_a_voxel_holds_the_mean_of_what_is_in_it(plain):
    record = draw(plain, 4)
    fine = Grid((56, 64, 60), (1.0, 1.1, 1.05))
    coarse, drawn = plain.render(record, GRID), plain.render(record, fine)
    mean = torch.nn.functional.avg_pool3d(drawn.chi[None], 2)[0]
    core = torch.nn.functional.avg_pool3d(coarse.mask.float()[None], 3, 1, 1)[0] > 0.999
    difference = (coarse.chi - mean)[core]
    # nearest labels, one a voxel, differ by half of the contrast
    assert float(difference.square().mean().sqrt()) < 0.2 * float(mean[core].std())
    assert abs(float(difference.mean())) < 0.05 * float(mean[core].std())


def test_nuclei_that_a_map_lacks_are_put_in(anatomy, table):
    brain = load_brain(anatomy.files[0], tuple(sorted(table.items())))
    for name in ("red nucleus", "substantia nigra", "dentate nucleus"):
        assert int((brain.parts == brain.names.index(name)).sum()) > 0
    assert all(55 < radius < 85 for radius in brain.radii)
    # nothing of skin and bone
    assert int((brain.parts == brain.names.index("skin")).sum()) == 0


def test_every_part_lies_in_its_range():
    for seed in range(50):
        drawn = Contrast(random=0.0).draw(np.random.default_rng(seed))
        assert set(drawn["chi"]) == set(PARTS)
        for part, chi in drawn["chi"].items():
            low, high = TISSUES[tissue_of(part)].chi
            assert low <= chi <= high, part


def test_iron_grows_with_age():
    def mean(age, part):
        contrast = Contrast(random=0.0, age=(age, age))
        drawn = [contrast.draw(np.random.default_rng(i))["chi"][part] for i in range(100)]
        return sum(drawn) / len(drawn)

    for part in IRON_RATES:
        low, high = TISSUES[part].chi
        assert mean(5, part) + 0.3 * (high - low) < mean(80, part)
    assert mean(5, "white matter") == pytest.approx(mean(80, "white matter"), abs=1e-9)


def test_random_contrast_is_no_tissues():
    drawn = [Contrast(random=1.0).draw(np.random.default_rng(i)) for i in range(60)]
    assert all(each["age"] is None for each in drawn)
    putamen = np.array([each["chi"]["putamen"] for each in drawn])
    low, high = tissue.RANGES[tissue.PUTAMEN]
    assert float(((low <= putamen) & (putamen <= high)).mean()) < 0.5


def test_lesions_reach_from_calcium_to_blood(anatomy):
    ill = replace(anatomy, lesions=Lesions(probability=1.0))
    drawn = [draw(ill, i)["lesions"]["lesions"] for i in range(200)]
    chi = [each["chi"] for lesions in drawn for each in lesions]
    assert -3.5 <= min(chi) < -3
    assert 1.6 < max(chi) <= 2


def test_maps_are_known_by_their_hashes(anatomy, folder):
    assert [each["file"] for each in anatomy.materials] == ["head_01.nii.gz", "head_02.nii.gz"]
    content = (folder / "head_01.nii.gz").read_bytes()
    assert anatomy.materials[0]["sha256"] == hashlib.sha256(content).hexdigest()
    assert anatomy.materials[0]["licence"] == "unknown"
    name, known = next(iter(SHA256.items()))
    assert origin_of(known)["source"].endswith(f"/{name}")
    assert len(SHA256) == 20


def test_a_bank_does_not_depend_on_where_maps_lie(anatomy, tmp_path):
    elsewhere = write_maps(tmp_path)
    assert repr(with_maps(anatomy, str(elsewhere))) == repr(anatomy)
    assert with_maps(anatomy, str(elsewhere)).materials == anatomy.materials


def test_maps_are_chosen_by_number(anatomy, folder, table):
    chosen = Anatomy(str(folder), table, maps=[2])
    assert [path.name for path in chosen.files] == ["head_02.nii.gz"]
    with pytest.raises(UnreadableError, match="no label map of number 3, 4"):
        Anatomy(str(folder), table, maps=[2, 3, 4])
    assert with_maps(chosen, maps=[1]).files == anatomy.files[:1]


def test_what_has_no_maps_is_refused(table, anatomy, tmp_path):
    with pytest.raises(UnreadableError, match="no NIfTI file"):
        Anatomy(str(tmp_path), table)
    with pytest.raises(UsageError, match="none is named"):
        draw(Anatomy(None, table), 0)
    with pytest.raises(UsageError, match="unknown part"):
        Anatomy(None, {1: "spleen"})
    with pytest.raises(ValueError, match="whole"):
        Anatomy(None, table, whole=2.0)
    with pytest.raises(InconsistentError, match=r"has no other\.nii"):
        anatomy.render({**draw(anatomy, 0), "file": "other.nii"}, GRID)


@pytest.mark.parametrize("change", [{"random": 2.0}, {"width": (0, 1)}, {"age": (9, 5)}])
def test_contrast_is_checked(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Contrast(**change)

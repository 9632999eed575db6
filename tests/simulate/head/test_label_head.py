"""Label maps: orientation, tables, what is added, and what is refused."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from small_head import PROTOCOL

from qsmnet.cli.compose import compose
from qsmnet.errors import InconsistentError, UnreadableError, UsageError
from qsmnet.simulate import tissue
from qsmnet.simulate.head.label_head import LabelHead
from qsmnet.simulate.head.labels import check_table, label_files, load_map
from qsmnet.simulate.head.simulator import HeadSimulator

TABLE = {
    0: "air",
    1: "white matter",
    2: "thalamus",
    3: "caudate",
    4: "putamen",
    5: "fourth ventricle",
    6: "brain stem",
    7: "cerebellar white matter",
    8: "globus pallidus",
    9: "bone",
    10: "soft tissue",
    11: "skin",
    12: "eye",
}
# centre in mm (the right one) and half axes; the later covers the earlier
SOLIDS = (
    (11, (0, 5, -20), (76, 96, 96)),
    (10, (0, 5, -20), (72, 92, 92)),
    (9, (0, -5, 8), (66, 82, 68)),
    (1, (0, -5, 8), (60, 76, 62)),
    (7, (20, -55, -35), (18, 15, 12)),
    (6, (0, -25, -30), (10, 10, 24)),
    (5, (0, -46, -33), (4, 4, 6)),
    (4, (25, 1, 0), (5, 14, 9)),
    (8, (20, -5, -1), (4, 8, 6)),
    (3, (13, 10, 10), (5, 12, 8)),
    (2, (11, -19, 7), (8, 13, 8)),
    (12, (31, 84, -30), (11, 11, 11)),
)
EDGE = 3.0


def draw(affine, shape):
    """A head of solids on the grid of an affine."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    x, y, z = np.moveaxis(nib.affines.apply_affine(affine, indices), -1, 0)
    labels = np.zeros(shape, np.int16)
    for label, (cx, cy, cz), (a, b, c) in SOLIDS:
        side = x if cx == 0 else abs(x)
        inside = ((side - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / c) ** 2 < 1
        labels[inside] = label
    # something that is not the head, and a head that the field of view cuts below
    labels[2:4, 2:4, 2:4] = 10
    return labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One map whose second axis points down."""
    affine = np.array(
        [[-EDGE, 0, 0, 90], [0, 0, EDGE, -105], [0, -EDGE, 0, 90], [0, 0, 0, 1]], dtype=float
    )
    path = tmp_path_factory.mktemp("maps") / "head.nii.gz"
    image = nib.Nifti1Image(draw(affine, (61, 56, 71)), affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)
    return path.parent


@pytest.fixture(scope="module")
def simulator(folder):
    return HeadSimulator(PROTOCOL, labels=str(folder), table=TABLE)


@pytest.fixture(scope="module")
def record(simulator):
    record = simulator.draw(1, "test", 0)
    # upright, so that places are known
    placement = {**record["anatomy"]["placement"], "rotation": np.eye(3).tolist()}
    return {**record, "anatomy": {**record["anatomy"], "placement": placement}}


@pytest.fixture(scope="module")
def scan(simulator, record):
    return simulator.render(record)


def middle(scan, *labels):
    where = torch.isin(scan.segmentation, torch.tensor(labels, dtype=torch.uint8))
    return PROTOCOL.grid.points()[:, where].mean(1)


def test_head_is_upright_whatever_the_order_of_axes(scan):
    eyes, brain, stem = (
        middle(scan, label) for label in (tissue.EYE, tissue.THALAMUS, tissue.PUTAMEN)
    )
    assert float(eyes[1] - brain[1]) > 80
    assert float(eyes[2] - brain[2]) < -25
    assert abs(float(eyes[0] - brain[0])) < 4
    assert float(stem[1] - brain[1]) == pytest.approx(20, abs=4)


def test_debris_is_dropped_and_the_neck_goes_on(scan, simulator, record):
    assert not (scan.segmentation[:3, :3] != tissue.AIR).any()
    drawn = simulator.paint(record)
    lowest, higher = drawn.chi[..., 0], drawn.chi[..., 20]
    assert float(lowest.min()) < 1.0
    assert float((lowest - higher).abs().mean()) < 0.3


def test_soft_tissue_is_fat_below_the_skin(scan):
    labels = set(scan.segmentation.unique().tolist())
    assert {tissue.FAT, tissue.MUSCLE, tissue.SKIN, tissue.BONE, tissue.AIR} <= labels


def test_missing_nuclei_lie_where_they_belong(record):
    nuclei = record["anatomy"]["nuclei"]
    assert [n["name"] for n in nuclei] == [
        name for name in ("red nucleus", "substantia nigra", "dentate nucleus") for _ in range(2)
    ]
    # the brain of the map lies with its middle at (0, -5, 8)
    expected = [(5, -15, -17), (10, -12, -20), (14, -51, -43)]
    for left, right, place in zip(nuclei[::2], nuclei[1::2], expected, strict=True):
        assert left["centre"][0] < 0 < right["centre"][0]
        assert right["centre"] == pytest.approx(place, abs=4)


def test_nuclei_are_seen_in_chi(simulator, record):
    high = {**record, "chi": {**record["chi"], "red nucleus": 0.9, "dentate nucleus": -0.9}}
    drawn = simulator.paint(high)
    base = simulator.paint(record)
    changed = (drawn.chi - base.chi)[..., drawn.chi.shape[2] - drawn.brain.shape[2] :]
    # mm^3 of fine voxels of 2 mm
    assert 60 < 8 * float((changed > 0.4).sum()) < 600
    assert 200 < 8 * float((changed < -0.4).sum()) < 2500


def test_shares_add_up_to_one(folder):
    head = load_map(folder / "head.nii.gz", tuple(sorted(TABLE.items())))
    shape = np.array(head.shares["air"].volume.shape) + head.shares["air"].corner
    total = torch.zeros(tuple(shape.tolist()))
    for share in head.shares.values():
        box = tuple(slice(c, c + n) for c, n in zip(share.corner, share.volume.shape, strict=True))
        total[box] += share.volume
    assert total == pytest.approx(torch.ones_like(total), abs=1e-4)


def test_every_seed_is_one_head(simulator):
    assert simulator.draw(5, "test", 1) == simulator.draw(5, "test", 1)
    assert simulator.draw(5, "test", 1)["anatomy"] != simulator.draw(5, "test", 2)["anatomy"]


def test_label_that_is_not_in_the_table(folder):
    short = {label: part for label, part in TABLE.items() if label not in {5, 12}}
    with pytest.raises(InconsistentError, match="labels 5, 12 are not in the table"):
        LabelHead(str(folder), short).draw(np.random.default_rng(0), PROTOCOL.grid)


def test_part_that_is_not_known(folder):
    with pytest.raises(UsageError, match="label 3 is the unknown part 'cheese'"):
        LabelHead(str(folder), {**TABLE, 3: "cheese"})


def test_table_without_brain(folder):
    table = {label: "bone" if label else "air" for label in TABLE}
    with pytest.raises(InconsistentError, match="no brain"):
        LabelHead(str(folder), table).draw(np.random.default_rng(0), PROTOCOL.grid)


def test_folder_without_maps(tmp_path):
    with pytest.raises(UnreadableError, match="no NIfTI"):
        HeadSimulator(PROTOCOL, labels=str(tmp_path), table=TABLE)


def test_a_map_is_a_folder_of_one(simulator, record, folder):
    one = replace(simulator, labels=str(folder / "head.nii.gz"))
    assert one.draw(1, "test", 0) == simulator.draw(1, "test", 0)
    assert torch.equal(one.paint(record).chi, simulator.paint(record).chi)


def test_map_of_another_record_is_refused(simulator, record):
    other = {**record, "anatomy": {**record["anatomy"], "sha256": "0" * 64}}
    with pytest.raises(InconsistentError, match="has not the map of the record"):
        simulator.render(other)


def test_packaged_table_is_one():
    path = compose("simulator", "head").table
    assert check_table(path)[24] == "extracerebral fluid"
    assert yaml.safe_load("24: x") == {24: "x"}


@pytest.mark.slow
def test_real_maps_have_nuclei_and_veins(outside_data):
    folder = outside_data / "head_label_maps"
    table = compose("simulator", "head").table
    small = replace(PROTOCOL, shape=(88, 120, 96), voxel_size=(2.0, 2.0, 2.0))
    for path in label_files(folder)[:3]:
        made = HeadSimulator(small, labels=str(path), table=table, factor=1)
        labels = made.paint(made.draw(1, "test", 0)).segmentation
        volumes = torch.bincount(labels.flatten().long(), minlength=23) * 8
        assert 100 < volumes[tissue.RED_NUCLEUS] < 600
        assert 100 < volumes[tissue.NIGRA] < 1200
        assert 300 < volumes[tissue.DENTATE] < 2500
        assert volumes[tissue.BLOOD] > 3000

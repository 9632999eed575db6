"""Folders of tiny label maps in the labels of ``configs/label_table/synthseg_head.yaml``."""

import nibabel as nib
import numpy as np

EDGE = 3.0
# label, centre in mm (the right one) and half axes; the later covers the earlier
SOLIDS = (
    (511, (0, -5, 8), (74, 90, 76)),
    (515, (0, -5, 8), (70, 86, 72)),
    (24, (0, -5, 8), (64, 80, 66)),
    (3, (0, -5, 8), (60, 76, 62)),
    (2, (0, -5, 8), (52, 68, 54)),
    (4, (10, 0, 14), (5, 25, 8)),
    (7, (20, -50, -30), (18, 15, 12)),
    (16, (0, -25, -25), (12, 12, 24)),
    (15, (0, -46, -30), (5, 5, 7)),
    (12, (25, 1, 0), (6, 14, 9)),
    (13, (18, -5, -1), (5, 8, 6)),
    (11, (13, 10, 10), (6, 12, 8)),
    (10, (11, -19, 7), (8, 13, 8)),
)


def write_map(path, grey=0):
    """One head; ``grey`` mm more of grey matter make it another."""
    shape = (57, 67, 57)
    affine = np.diag([EDGE, EDGE, EDGE, 1.0])
    affine[:3, 3] = -EDGE * (np.array(shape) - 1) / 2 + (0, -5, 8)
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    x, y, z = np.moveaxis(nib.affines.apply_affine(affine, indices), -1, 0)
    labels = np.zeros(shape, np.int16)
    for label, (cx, cy, cz), radii in SOLIDS:
        a, b, c = (r - grey if label == 2 else r for r in radii)
        side = x if cx == 0 else abs(x)
        labels[((side - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / c) ** 2 < 1] = label
    image = nib.Nifti1Image(labels, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)


def write_maps(folder, numbers=(1, 2)):
    """Maps ``head_01.nii.gz`` and so on, all different."""
    for number in numbers:
        write_map(folder / f"head_{number:02d}.nii.gz", grey=2 * number)
    return folder

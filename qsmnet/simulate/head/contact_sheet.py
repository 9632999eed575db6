"""A picture of simulated scans: one row a scan."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from qsmnet.simulate.head.scan import HeadScan


def head_sheet(scans: Sequence[HeadScan]) -> Figure:
    """Draw chi in three planes, fields, magnitude, phase and labels; only the brain is shown."""
    figure, axes = plt.subplots(
        len(scans), 9, figsize=(24, 3.2 * len(scans)), squeeze=False, layout="constrained"
    )
    for row, scan in zip(axes, scans, strict=True):
        for axis, plane in zip(row, (2, 1, 0), strict=False):
            _show(axis, scan, scan.chi, "chi +-0.15 ppm", 0.15, plane)
        _show(row[3], scan, scan.total_field, "total field +-1 ppm", 1.0, 0)
        _show(row[4], scan, scan.local_field, "local field +-0.05 ppm", 0.05)
        bright = float(scan.magnitude[0][scan.mask].max())
        _show(row[5], scan, 2 * scan.magnitude[0] - bright, "magnitude, echo 1", bright)
        _show(row[6], scan, scan.phase[-1], "phase, last echo", np.pi)
        _show(row[7], scan, 2 * scan.r2star - 80, "R2* 0 to 80 / s", 80.0)
        _show(row[8], scan, scan.segmentation - 8.0, "labels", 8.0, colours="nipy_spectral")
        row[0].set_title(_title(scan), fontsize=8)
    return figure


def _show(
    axis: Axes,
    scan: HeadScan,
    volume: Tensor,
    title: str,
    window: float,
    plane: int = 2,
    colours: str = "gray",
) -> None:
    # cut to the brain's box and mask: a face is nobody's business, of a person's map least of all
    where = scan.mask.nonzero()
    low, high = where.amin(0).tolist(), (where.amax(0) + 1).tolist()
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inside = torch.where(scan.mask, volume, float("nan"))[box].numpy()
    image = np.take(inside, inside.shape[plane] // 2, axis=plane)
    across, up = (d for i, d in enumerate(scan.geometry.voxel_size) if i != plane)
    axis.imshow(
        image.T, cmap=colours, vmin=-window, vmax=window, origin="lower", aspect=up / across
    )
    axis.set_title(title, fontsize=8)
    axis.set_axis_off()


def _title(scan: HeadScan) -> str:
    sizes = " x ".join(f"{d:g}" for d in scan.geometry.voxel_size)
    return f"{scan.record['source']}: {sizes} mm, {scan.protocol.b0:g} T, chi +-0.15 ppm"

"""A picture of what was drawn: one row a scene."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qsmnet.simulate.scene import Scene

_CHI_WINDOW, _FIELD_WINDOW = 0.1, 0.05


def contact_sheet(scenes: Sequence[Scene]) -> Figure:
    """Draw susceptibility in three planes, local field, labels and histogram of each scene.

    Susceptibility is shown at +-0.1 ppm and the field at +-0.05 ppm, voxels in their true
    proportions.
    """
    figure, axes = plt.subplots(
        len(scenes), 6, figsize=(15, 2.7 * len(scenes)), squeeze=False, layout="constrained"
    )
    for row, scene in zip(axes, scenes, strict=True):
        for axis, plane in zip(row, (2, 1, 0), strict=False):
            _show(axis, scene, scene.chi.cpu().numpy(), plane, _CHI_WINDOW)
        _show(row[3], scene, scene.local_field.cpu().numpy(), 2, _FIELD_WINDOW)
        _show(row[4], scene, scene.segmentation.cpu().numpy() - 8.0, 2, 8.0, "nipy_spectral")
        _histogram(row[5], scene)
        row[0].set_title(_title(scene), fontsize=8, loc="left")
        row[3].set_title("local field +-0.05 ppm", fontsize=8)
        row[4].set_title("segmentation", fontsize=8)
    return figure


def _show(
    axis: Axes,
    scene: Scene,
    volume: np.ndarray,
    plane: int,
    window: float,
    colours: str = "gray",
) -> None:
    image = np.take(volume, volume.shape[plane] // 2, axis=plane)
    across, up = (d for i, d in enumerate(scene.geometry.voxel_size) if i != plane)
    axis.imshow(
        image.T, cmap=colours, vmin=-window, vmax=window, origin="lower", aspect=up / across
    )
    axis.set_axis_off()


def _histogram(axis: Axes, scene: Scene) -> None:
    bins = np.linspace(-0.5, 0.5, 101).tolist()
    axis.hist(scene.chi[scene.mask].cpu().numpy(), bins=bins, log=True)
    axis.set_xlabel("chi (ppm)", fontsize=8)
    axis.tick_params(labelsize=7)


def _title(scene: Scene) -> str:
    sizes = " x ".join(f"{d:g}" for d in scene.geometry.voxel_size)
    direction = ", ".join(f"{c:.2f}" for c in scene.geometry.b0_dir)
    source = f"{scene.record['source']} {scene.record['index']} (seed {scene.record['seed']})"
    noise = 1e3 * float(scene.noise[scene.mask].median())
    return f"{source}: {sizes} mm, B0 ({direction}), noise {noise:.2f} ppb"

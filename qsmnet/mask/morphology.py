"""Shapes of masks: distances in mm on any voxel; beyond the grid counts as outside."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from qsmnet.geometry import Triple

Inside = npt.NDArray[np.bool_]


def eroded(inside: Inside, radius: float, edges: Triple) -> Inside:
    """Voxels farther than ``radius`` mm from everything outside."""
    return inside if radius == 0 else _in_box(_shrunk, inside, 0.0, radius, edges)


def dilated(inside: Inside, radius: float, edges: Triple) -> Inside:
    """Voxels at most ``radius`` mm from an inside one."""
    return inside if radius == 0 else _in_box(_grown, inside, radius, radius, edges)


def closed(inside: Inside, radius: float, edges: Triple) -> Inside:
    """Dilated and eroded by ``radius`` mm, as on a grid with room for it."""
    if radius == 0:
        return inside
    room = [math.ceil(radius / edge) + 1 for edge in edges]
    wide = np.pad(inside, [(n, n) for n in room])
    grown = dilated(wide, radius, edges)
    return eroded(grown, radius, edges)[tuple(slice(n, -n) for n in room)]


def opened(inside: Inside, radius: float, edges: Triple) -> Inside:
    """Largest part after erosion by ``radius`` mm, and what of ``inside`` lies that near to it."""
    return dilated(largest_part(eroded(inside, radius, edges)), radius, edges) & inside


def eroded_voxels(inside: Inside, count: int) -> Inside:
    """``count`` layers of voxels off, whatever their size: those that share a face with outside."""
    return ndimage.binary_erosion(inside, iterations=count) if count else inside


def dilated_voxels(inside: Inside, count: int) -> Inside:
    """``count`` layers of voxels more: those that share a face with inside."""
    return ndimage.binary_dilation(inside, iterations=count) if count else inside


def filled(inside: Inside, largest: float = 1.0) -> Inside:
    """Holes filled that hold at most ``largest`` of the voxels of ``inside``."""
    whole: Inside = ndimage.binary_fill_holes(inside)
    if largest >= 1:
        return whole
    labels, _ = ndimage.label(whole & ~inside)
    small = np.bincount(labels.ravel()) <= largest * inside.sum()
    small[0] = False
    holes: Inside = small[labels]
    return inside | holes


def largest_part(inside: Inside) -> Inside:
    """Keep the largest of the parts that do not touch by a face."""
    labels, count = ndimage.label(inside)
    if count < 2:
        return inside
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: Inside = labels == sizes.argmax()
    return largest


def solid_part(inside: Inside, edges: Triple, opening: float, erosion: float) -> Inside:
    """Open by ``opening`` mm, fill holes, erode by ``erosion`` mm; keep the largest part."""
    cut = largest_part(eroded(inside, opening, edges))
    return largest_part(eroded(filled(dilated(cut, opening, edges)), erosion, edges))


def _in_box(
    change: Callable[[Inside, float, Triple], Inside],
    inside: Inside,
    margin: float,
    radius: float,
    edges: Triple,
) -> Inside:
    """Apply ``change`` in the box around the mask alone: distances over a whole grid are slow."""
    changed = np.zeros_like(inside)
    box = ndimage.find_objects(inside.astype(np.uint8))
    if box:
        steps = [math.ceil(margin / edge) for edge in edges]
        pairs = zip(box[0], steps, strict=True)
        wide = tuple(slice(max(0, each.start - n), each.stop + n) for each, n in pairs)
        changed[wide] = change(inside[wide], radius, edges)
    return changed


def _shrunk(inside: Inside, radius: float, edges: Triple) -> Inside:
    # one voxel around the box: outside of the mask, or beyond the grid
    depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=edges)
    shrunk: Inside = depth[1:-1, 1:-1, 1:-1] > radius
    return shrunk


def _grown(inside: Inside, radius: float, edges: Triple) -> Inside:
    grown: Inside = ndimage.distance_transform_edt(~inside, sampling=edges) <= radius
    return grown

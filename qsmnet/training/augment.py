"""Variants of a training item: susceptibility scaled, axes mirrored and exchanged."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from qsmnet.geometry import Geometry, Triple
from qsmnet.inversion.learned import axes_with_b0_last
from qsmnet.simulate.phantom import Phantom
from qsmnet.training.batch import Item


def mirrored_and_scaled(
    phantom: Phantom, rng: np.random.Generator, scale: Sequence[float]
) -> Phantom:
    """Mirror axes and scale susceptibility, before the field is computed: physics holds.

    Noise that is drawn afterwards does not scale, so that its ratio to the field varies.
    """
    axes = [axis for axis in range(3) if rng.random() < 0.5]
    factor = float(np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1]))))
    chi, mask, labels = (
        volume.flip(axes) if axes else volume
        for volume in (phantom.chi, phantom.mask, phantom.segmentation)
    )
    return Phantom(chi * factor, mask, labels)


def turned(item: Item, rng: np.random.Generator) -> Item:
    """Exchange axes of equal length and mirror any, volumes and geometry alike.

    Of these orders of axes only those with B0 nearest to the third, if there are any: so it is at
    inference (`qsmnet.inversion.learned.axes_with_b0_last`), and nothing else need be learned.
    """
    shape = item.chi.shape
    alike = [
        each for each in permutations(range(3)) if tuple(shape[a] for a in each) == tuple(shape)
    ]
    last = axes_with_b0_last(item.geometry)[2]
    alike = [each for each in alike if each[2] == last] or alike
    order = alike[int(rng.integers(len(alike)))]
    axes = [axis for axis in range(3) if rng.random() < 0.5]
    return turned_by(item, order, axes)


def turned_by(item: Item, order: Sequence[int], mirrored: Sequence[int]) -> Item:
    """Take axis ``order[i]`` for axis i, then mirror the axes ``mirrored``."""
    moved = item.map(lambda volume: volume.permute(*order).flip(tuple(mirrored)).contiguous())
    return replace(moved, geometry=_turned_geometry(item.geometry, order, mirrored))


def _turned_geometry(geometry: Geometry, order: Sequence[int], mirrored: Sequence[int]) -> Geometry:
    signs = [-1.0 if axis in mirrored else 1.0 for axis in range(3)]
    edges, direction = geometry.voxel_size, geometry.b0_dir
    size: Triple = (edges[order[0]], edges[order[1]], edges[order[2]])
    x, y, z = (sign * direction[axis] for sign, axis in zip(signs, order, strict=True))
    return Geometry(size, (x, y, z))

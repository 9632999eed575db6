"""Brain extraction by an elastic surface that grows until the brain ends."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool
from scipy import ndimage
from torch import Tensor

from qsmnet.errors import InconsistentError
from qsmnet.geometry import Triple
from qsmnet.mask.bias import fit_bias
from qsmnet.mask.mask import Evidence
from qsmnet.mask.morphology import Inside, closed, filled, opened
from qsmnet.mask.surface import Mesh, divided, icosphere, winding_number
from qsmnet.summary import Summary

Array = npt.NDArray[np.float64]

# radii of curvature in mm between which smoothing sets in: of a brain's surface
_SHARPEST, _FLATTEST = 3.33, 10.0
# how deep in mm the surface looks for the darkest and for the brightest voxel
_DARK_DEPTH, _BRIGHT_DEPTH = 20.0, 10.0
# share of the way to the neighbours' mean along the surface, and of an edge along the normal
_ALONG, _OUTWARD = 0.5, 0.1
# exponent that makes a fraction of 0.5 fit T1, T2 and gradient echoes alike
_EXPONENT = 0.275
# steps of the first guess, of the coarse and of the fine surface
_GUESS, _COARSE, _FINE = 300, 600, 200
_COARSE_DIVISIONS = 3
# nothing of a brain is as thin as twice this, in mm; a bubble's stalk is
_OPENING = 3.0
_FIX = "give a mask file, --mask magnitude for what is no head, or --mask whole for a part of one"


@dataclass(frozen=True)
class Bet:
    r"""Brain extraction with a surface (BET; Smith 2002, 10.1002/hbm.10062), from the first echo.

    A sphere of half the head's radius grows from the centre of gravity. At each step a vertex moves
    by

    .. math:: u = \tfrac{1}{2} s_t + f_2 s_n + 0.1\, \frac{I_{min} - t_l}{I_{max} - t_2}\, l\, n,
       \qquad t_l = t_2 + f^{0.275} (I_{max} - t_2)

    with s the way to the mean of its neighbours, along the surface and along its normal n, l the
    mean edge, :math:`f_2` near 1 where the surface bends within 3.3 mm and near 0 beyond 10 mm,
    :math:`I_{min}` and :math:`I_{max}` the darkest voxel within 20 mm and the brightest within
    10 mm inward (no brighter than the head's median), and :math:`t_2` the second percentile.

    Differs from the paper: (1) the fraction is read with the exponent 0.275, as common programs do;
    (2) a first surface on a coarse mesh finds the smooth part of the magnitude, a polynomial of
    second order in its logarithm (coils change it severalfold, and the threshold is global);
    (3) a coarse mesh of 642 vertices goes most of the way, one of 2562 the rest; (4) the stronger
    smoothing of inward bends, there a second try after a self-intersection, is always on and fades
    out in the last quarter of the steps; what still folds is resolved by the winding number;
    (5) images are smoothed a little, samples are trilinear, and the surface is cut exactly at voxel
    middles. Lengths are in mm, so that voxels may be anisotropic.

    Parameters
    ----------
    fraction
        f in (0, 1); smaller keeps more.
    gradient
        -1 to 1, added to :math:`f^{0.275}` at one radius above the centre (along the third axis)
        and taken off below it: positive keeps more at the bottom.
    smoothing
        Standard deviation of the Gaussian in mm that is laid over the magnitude; 0 is none.
    bias_order
        Degree of the polynomial of the smooth part; 0 is none.
    concave_smoothing
        Factor of :math:`f_2` where the surface bends inward; 1 is none.
    closing
        Radius in mm: fluid in folds narrower than twice this belongs to the brain; 0 is none.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """

    fraction: float = 0.5
    gradient: float = 0.0
    smoothing: float = 1.0
    bias_order: int = 2
    concave_smoothing: float = 100.0
    closing: float = 8.0

    summary: ClassVar[Summary] = Summary(
        cost="no FFT; 1100 steps of a surface of 642 to 2562 vertices",
        use="The default: the brain of a head, without skull and scalp, offline.",
        reference="Smith 2002, 10.1002/hbm.10062",
    )

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must lie in (0, 1), got {self.fraction}")
        if not -1 <= self.gradient <= 1:
            raise ValueError(f"gradient must lie in [-1, 1], got {self.gradient}")
        if self.bias_order not in range(4):
            raise ValueError(f"bias_order must be 0 to 3, got {self.bias_order}")
        if not self.concave_smoothing >= 1:
            raise ValueError(f"concave_smoothing is at least 1, got {self.concave_smoothing}")
        if not all(length >= 0 for length in (self.smoothing, self.closing)):
            raise ValueError("smoothing and closing are lengths in mm, not negative")

    def __call__(self, evidence: Evidence, /) -> Bool[Tensor, "x y z"]:
        """Brain mask; NaN in the magnitude counts as background.

        Raises
        ------
        InconsistentError
            If no object stands out of the magnitude, or no brain is found in it.
        """
        edges = evidence.geometry.voxel_size
        magnitude = evidence.first_magnitude()
        smooth = ndimage.gaussian_filter(magnitude, [self.smoothing / edge for edge in edges])
        inside = self._extract(smooth, edges)
        return evidence.found(filled(closed(opened(inside, _OPENING, edges), self.closing, edges)))

    def _extract(self, magnitude: Array, edges: Triple) -> Inside:
        sphere, mesh = icosphere(_COARSE_DIVISIONS)
        even = magnitude
        if self.bias_order:
            even = self._guess(magnitude, edges, sphere, mesh)
        head = _Head.of(even, edges)
        vertices = self._grow(even, head, head.start(sphere), mesh, _COARSE, fades=False)
        vertices, mesh = divided(vertices, mesh)
        vertices = self._grow(even, head, vertices, mesh, _FINE, fades=True)
        return winding_number(vertices / edges, mesh, _shape(even)) > 0

    def _guess(self, magnitude: Array, edges: Triple, sphere: Array, mesh: Mesh) -> Array:
        """``magnitude`` without its smooth part, as a first surface finds it."""
        head = _Head.of(magnitude, edges)
        bright = magnitude > head.threshold
        # a slope is all that can be told of a ball that may hold more than brain
        even = magnitude / fit_bias(magnitude, bright & head.ball(bright, 0.6), 1)
        head = _Head.of(even, edges)
        vertices = self._grow(even, head, head.start(sphere), mesh, _GUESS, fades=True)
        inside = winding_number(vertices / edges, mesh, _shape(even)) > 0
        if not (bright & inside).any():
            raise InconsistentError("magnitude", "no brain is found in it", _FIX)
        return magnitude / fit_bias(magnitude, bright & inside, self.bias_order)

    def _grow(
        self, magnitude: Array, head: "_Head", vertices: Array, mesh: Mesh, steps: int, fades: bool
    ) -> Array:
        level = self.fraction**_EXPONENT
        for step in range(steps):
            left = (steps - step) / (0.25 * steps) if fades else 1.0
            factor = max(1.0, self.concave_smoothing * min(1.0, left))
            height = (vertices[:, 2] - head.centre[2]) / head.radius
            share = np.clip(level + self.gradient * height, 0.0, 1.0)
            vertices = vertices + _update(magnitude, head, vertices, mesh, share, factor)
        return vertices


@dataclass(frozen=True)
class _Head:
    """Robust least value, threshold and median of a head; centre and radius in mm."""

    edges: Triple
    least: float
    threshold: float
    median: float
    centre: Array
    radius: float

    @classmethod
    def of(cls, magnitude: Array, edges: Triple) -> "_Head":
        least, most = np.quantile(magnitude, [0.02, 0.98])
        threshold = least + 0.1 * (most - least)
        bright = magnitude > threshold
        if not threshold > least or not bright.any():
            raise InconsistentError("magnitude", "no object stands out of it", _FIX)
        weight = np.where(bright, np.minimum(magnitude, most), 0.0)
        middle = ndimage.center_of_mass(weight)
        radius = float(np.cbrt(3 * bright.sum() * np.prod(edges) / (4 * np.pi)))
        head = cls(edges, least, threshold, 0.0, np.multiply(middle, edges), radius)
        tissue = magnitude[head.ball(bright, 1.0)]
        tissue = tissue[(tissue > least) & (tissue < most)]
        median = float(np.median(tissue)) if tissue.size else float(most)
        return cls(edges, least, threshold, median, head.centre, radius)

    def start(self, sphere: Array) -> Array:
        """Sphere of half the radius."""
        return self.centre + 0.5 * self.radius * sphere

    def ball(self, grid: Inside, share: float) -> Inside:
        """Voxels within ``share`` of the radius about the centre."""
        x, y, z = (
            (np.arange(n) * edge - middle) ** 2
            for n, edge, middle in zip(grid.shape, self.edges, self.centre, strict=True)
        )
        near: Inside = x[:, None, None] + y[:, None] + z < (share * self.radius) ** 2
        return near


def _update(
    magnitude: Array, head: _Head, vertices: Array, mesh: Mesh, share: Array, factor: float
) -> Array:
    normals, edge = mesh.normals(vertices), mesh.edge_length(vertices)
    toward = mesh.average @ vertices - vertices
    outward = np.einsum("vi,vi->v", toward, normals)
    along = toward - outward[:, None] * normals
    # one over the radius of the sphere through a vertex and its neighbours
    bend = 2 * np.abs(outward) / edge**2
    middle = (1 / _SHARPEST + 1 / _FLATTEST) / 2
    slope = 6 / (1 / _SHARPEST - 1 / _FLATTEST)
    smoothing = 0.5 * (1 + np.tanh(slope * (bend - middle)))
    smoothing = np.where(outward > 0, np.minimum(1.0, factor * smoothing), smoothing)
    darkest, brightest = _look_inward(magnitude, head, vertices, normals)
    contrast = (darkest - head.least) / (brightest - head.least) - share
    update: Array = _ALONG * along
    update += (smoothing * outward + _OUTWARD * edge * contrast)[:, None] * normals
    return update


def _look_inward(
    magnitude: Array, head: _Head, vertices: Array, normals: Array
) -> tuple[Array, Array]:
    """Darkest and brightest value below each vertex, within the range of the head."""
    depth = np.arange(0.0, _DARK_DEPTH + 1e-6, max(1.0, min(head.edges)))
    places = (vertices - depth[:, None, None] * normals) / head.edges
    values = ndimage.map_coordinates(magnitude, np.moveaxis(places, -1, 0), order=1)
    near = values[depth <= _BRIGHT_DEPTH]
    darkest = np.clip(values.min(0), head.least, head.median)
    return darkest, np.clip(near.max(0), head.threshold, max(head.median, head.threshold))


def _shape(volume: Array) -> tuple[int, int, int]:
    x, y, z = volume.shape
    return x, y, z

"""Closed triangle surfaces: a sphere to start from, and the voxels inside of one."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# columns are tried this far (in voxels) beside the middles of voxels, where no edge lies by chance
_BESIDE = np.array((1.7e-4, 2.9e-4, 0.0))


@dataclass(frozen=True)
class Mesh:
    """How the vertices of a closed surface hang together, wherever they are.

    Parameters
    ----------
    triangles
        ``(triangle, 3)`` numbers of vertices, counter-clockwise seen from outside.
    edges
        ``(2, edge)`` numbers of neighbours, each pair once.
    average
        ``(vertex, vertex)``: takes the mean of each vertex's neighbours.
    around
        ``(vertex, triangle)``: sums over the triangles at each vertex.
    """

    triangles: Integers
    edges: Integers
    average: sparse.csr_array
    around: sparse.csr_array

    @classmethod
    def of(cls, triangles: Integers) -> "Mesh":
        """Mesh of a closed surface's triangles."""
        size = int(triangles.max()) + 1
        first, then = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
        ones, numbers = np.ones(first.size), np.arange(first.size) // 3
        links = sparse.csr_array((ones, (first, then)), (size, size))
        around = sparse.csr_array((ones, (first, numbers)), (size, len(triangles)))
        once = first < then
        average = sparse.csr_array(links.multiply(1.0 / links.sum(1)[:, None]))
        return cls(triangles, np.stack([first[once], then[once]]), average, around)

    def normals(self, vertices: Array) -> Array:
        """Give unit normals outward: the mean of the triangles at each vertex, weighted by area."""
        first, second, third = vertices[self.triangles.T]
        normals: Array = self.around @ np.cross(second - first, third - first)
        return normals / np.maximum(_length(normals), 1e-12)[:, None]

    def edge_length(self, vertices: Array) -> float:
        """Mean distance of neighbours."""
        return float(_length(vertices[self.edges[0]] - vertices[self.edges[1]]).mean())


def icosphere(subdivisions: int) -> tuple[Array, Mesh]:
    """Vertices ``(10 4^n + 2, 3)`` on the unit sphere, and the mesh of a divided icosahedron."""
    ratio = (1 + 5**0.5) / 2
    pairs = [(a, b) for a in (-1.0, 1.0) for b in (-ratio, ratio)]
    corners = [np.roll((0.0, a, b), turn) for turn in range(3) for a, b in pairs]
    vertices = _on_sphere(np.array(corners))
    mesh = Mesh.of(_hull(vertices))
    for _ in range(subdivisions):
        vertices, mesh = divided(vertices, mesh)
        vertices = _on_sphere(vertices)
    return vertices, mesh


def divided(vertices: Array, mesh: Mesh) -> tuple[Array, Mesh]:
    """Each triangle into four: new vertices are in the middle of edges, after the old ones."""
    triangles = mesh.triangles
    pairs = np.sort(np.stack([triangles, np.roll(triangles, -1, axis=1)], -1), -1)
    edges, number = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
    ab, bc, ca = len(vertices) + number.reshape(-1, 3).T
    a, b, c = triangles.T
    parts = [np.stack(p, -1) for p in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    return np.concatenate([vertices, vertices[edges].mean(1)]), Mesh.of(np.concatenate(parts))


def winding_number(
    vertices: Array, mesh: Mesh, shape: tuple[int, int, int]
) -> npt.NDArray[np.int16]:
    """How often the surface goes around the middle of each voxel; ``vertices`` are in voxels.

    One inside of a surface and zero outside; any other number where it cuts through itself.
    """
    corners = (vertices + _BESIDE)[mesh.triangles]
    x, y, which = _columns_below(corners[..., :2], shape)
    first, second, third = np.moveaxis(corners[which], 1, 0)
    at = np.stack([x, y], -1).astype(np.float64)
    shares = [_area(second, third, at), _area(third, first, at), _area(first, second, at)]
    hit = (np.min(shares, 0) >= 0) | (np.max(shares, 0) <= 0)
    whole = np.where(hit, sum(shares), 1.0)
    hit &= whole != 0
    height = (shares[0] * first[:, 2] + shares[1] * second[:, 2] + shares[2] * third[:, 2]) / whole
    crossed = np.zeros((shape[0], shape[1], shape[2] + 1), dtype=np.int16)
    above = np.clip(np.ceil(height[hit]), 0, shape[2]).astype(np.int64)
    # the surface is entered through triangles that face downward: clockwise seen from above
    np.add.at(crossed, (x[hit], y[hit], above), -np.sign(whole[hit]).astype(np.int16))
    winding: npt.NDArray[np.int16] = crossed.cumsum(-1, dtype=np.int16)[..., :-1]
    return winding


def _columns_below(corners: Array, shape: tuple[int, int, int]) -> tuple[Integers, ...]:
    """(x, y, triangle) of every column in the box around each triangle."""
    most = np.array(shape[:2]) - 1
    low = np.clip(np.ceil(corners.min(1)), 0, None).astype(np.int64)
    high = np.minimum(np.floor(corners.max(1)), most).astype(np.int64)
    sizes = np.maximum(high - low + 1, 0)
    counts = sizes.prod(1)
    which = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(which)) - np.repeat(counts.cumsum() - counts, counts)
    x, y = np.divmod(number, sizes[which, 1])
    return x + low[which, 0], y + low[which, 1], which


def _area(first: Array, second: Array, at: Array) -> Array:
    """Twice the signed area of the triangles seen from above."""
    u, v = second[:, :2] - first[:, :2], at - first[:, :2]
    area: Array = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    return area


def _hull(vertices: Array) -> Integers:
    """Triangles of an icosahedron: triples of vertices at the shortest distance."""
    apart = _length(vertices[:, None] - vertices[None])
    near = (apart > 0) & (apart < 1.01 * apart[apart > 0].min())
    triples = [
        (a, b, c)
        for a, b in np.argwhere(near)
        for c in np.flatnonzero(near[a] & near[b])
        if a < b and a < c and np.linalg.det(vertices[[a, b, c]]) > 0
    ]
    return np.array(triples, dtype=np.int64)


def _on_sphere(points: Array) -> Array:
    return points / _length(points)[:, None]


def _length(vectors: Array) -> Array:
    length: Array = np.sqrt((vectors**2).sum(-1))
    return length

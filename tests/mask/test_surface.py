"""Triangle surfaces: a sphere's area, curvature and voxels."""

import numpy as np
import pytest

from qsmnet.mask.surface import divided, icosphere, winding_number

SHAPE = (41, 38, 33)
CENTRE = np.array((20.3, 18.1, 16.4))


def inside_ellipsoid(radii):
    axes = [(np.arange(n) - c) / r for n, c, r in zip(SHAPE, CENTRE, radii, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 < 1


@pytest.mark.parametrize(("divisions", "vertices"), [(0, 12), (1, 42), (3, 642)])
def test_a_sphere_is_closed(divisions, vertices):
    sphere, mesh = icosphere(divisions)
    assert len(sphere) == vertices
    assert np.allclose((sphere**2).sum(1), 1)
    # the number that Euler gives a sphere
    assert vertices - mesh.edges.shape[1] + len(mesh.triangles) == 2


def test_normals_of_a_sphere_point_outward():
    sphere, mesh = icosphere(3)
    assert ((mesh.normals(7 * sphere) * sphere).sum(1) > 0.9999).all()


def test_neighbours_of_a_sphere_lie_inward_by_its_curvature():
    sphere, mesh = icosphere(3)
    radius = 9.0
    inward = -((mesh.average @ (radius * sphere) - radius * sphere) * sphere).sum(1)
    edge = mesh.edge_length(radius * sphere)
    assert edge**2 / (2 * inward.mean()) == pytest.approx(radius, rel=0.05)


def test_division_keeps_the_vertices_and_the_surface():
    sphere, mesh = icosphere(2)
    finer, fine = divided(sphere, mesh)
    assert np.array_equal(finer[: len(sphere)], sphere)
    assert len(fine.triangles) == 4 * len(mesh.triangles)
    assert (fine.normals(finer) * finer).sum(1).min() > 0.9


@pytest.mark.parametrize("radii", [(12.0, 12.0, 12.0), (15.0, 9.0, 12.0)])
def test_voxels_inside_of_a_surface(radii):
    sphere, mesh = icosphere(4)
    winding = winding_number(sphere * radii + CENTRE, mesh, SHAPE)
    truth = inside_ellipsoid(radii)
    assert set(np.unique(winding)) == {0, 1}
    assert (winding != truth).sum() < 0.01 * truth.sum()


def test_a_surface_beyond_the_grid_is_cut_off():
    sphere, mesh = icosphere(4)
    radii = (30.0, 10.0, 30.0)
    winding = winding_number(sphere * radii + CENTRE, mesh, SHAPE)
    truth = inside_ellipsoid(radii)
    assert truth[0].any()
    assert truth[..., 0].any()
    assert (winding != truth).sum() < 0.01 * truth.sum()


def test_planes_through_voxels_do_not_matter():
    # vertices at whole numbers: columns of voxels go through corners and edges
    sphere, mesh = icosphere(0)
    rounded = np.round(sphere * 8) + np.array((20, 18, 16))
    assert set(np.unique(winding_number(rounded, mesh, SHAPE))) == {0, 1}


def test_turned_inside_out_it_winds_backward():
    sphere, mesh = icosphere(2)
    winding = winding_number(-8 * sphere + CENTRE, mesh, SHAPE)
    mirrored = winding_number(8 * sphere * (1, 1, -1) + CENTRE, mesh, SHAPE)
    assert set(np.unique(winding)) == set(np.unique(mirrored)) == {-1, 0}

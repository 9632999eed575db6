"""Properties of the dipole operator, on random vectors, odd and even grids and oblique fields."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qsmnet import dipole as dipole_module
from qsmnet.dipole import (
    Dipole,
    Shape,
    TensorCache,
    dipole_spectrum,
    padded_shape,
    sampled_kernel,
)
from qsmnet.geometry import Geometry, Triple

Pair = tuple[Triple, Triple]
EXACT = 1e-10
SHAPES = st.tuples(*(st.integers(3, 9),) * 3)
# voxel size and B0 direction; the objects are made in the tests, whose checked annotations draw
# random numbers, which a strategy must not
GEOMETRIES = st.tuples(
    st.tuples(*(st.floats(0.3, 3.0),) * 3),
    st.tuples(*(st.floats(-1.0, 1.0),) * 3).filter(lambda b: math.hypot(*b) > 0.1),
)
KERNELS = st.sampled_from(["sampled", "prism"])
PADDINGS = st.sampled_from([None, 1.0, 1.5, 2.0])
OBLIQUE = Geometry((0.7, 1.1, 1.4), (0.17, -0.26, 0.95))


def noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inner(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())


def double(shape: Shape, geometry: Pair, kernel: str, padding: float | None) -> Dipole:
    return Dipole(shape, Geometry(*geometry), kernel, padding, dtype=torch.float64)


@settings(deadline=None, max_examples=40)
@given(SHAPES, GEOMETRIES, KERNELS, PADDINGS)
def test_linear(shape: Shape, geometry: Pair, kernel: str, padding: float | None) -> None:
    dipole = double(shape, geometry, kernel, padding)
    x, y = noise(shape, 1), noise(shape, 2)
    together = dipole.forward(2.5 * x - 0.3 * y)
    separate = 2.5 * dipole.forward(x) - 0.3 * dipole.forward(y)
    torch.testing.assert_close(together, separate, rtol=0, atol=EXACT)


@settings(deadline=None, max_examples=40)
@given(SHAPES, GEOMETRIES, KERNELS, PADDINGS)
def test_self_adjoint(shape: Shape, geometry: Pair, kernel: str, padding: float | None) -> None:
    dipole = double(shape, geometry, kernel, padding)
    x, y = noise(shape, 1), noise(shape, 2)
    size = float(x.norm() * y.norm())
    assert abs(inner(dipole.forward(x), y) - inner(x, dipole.adjoint(y))) <= EXACT * size


@settings(deadline=None, max_examples=40)
@given(SHAPES, GEOMETRIES, KERNELS, PADDINGS)
def test_normal_is_adjoint_of_forward(
    shape: Shape, geometry: Pair, kernel: str, padding: float | None
) -> None:
    dipole = double(shape, geometry, kernel, padding)
    x = noise(shape)
    expected = dipole.adjoint(dipole.forward(x))
    torch.testing.assert_close(dipole.normal(x), expected, rtol=0, atol=EXACT)
    assert inner(x, dipole.normal(x)) == pytest.approx(float(dipole.forward(x).square().sum()))


@settings(deadline=None, max_examples=40)
@given(SHAPES, GEOMETRIES)
def test_real_fft_equals_complex_fft(shape: Shape, geometry: Pair) -> None:
    """Fails without the symmetrised Nyquist planes: the complex result is then not even real."""
    x = noise(shape)
    full = torch.fft.ifftn(torch.fft.fftn(x) * sampled_kernel(shape, Geometry(*geometry)))
    assert full.imag.abs().max() < EXACT
    real = double(shape, geometry, "sampled", None).forward(x)
    torch.testing.assert_close(real, full.real, rtol=0, atol=EXACT)


def test_nyquist_symmetrisation_matters() -> None:
    """The plain kernel loses a part of the field; ours is its even part, and even."""
    shape = (8, 6, 10)
    axes = [
        torch.fft.fftfreq(n, d, dtype=torch.float64)
        for n, d in zip(shape, OBLIQUE.voxel_size, strict=True)
    ]
    k = torch.meshgrid(*axes, indexing="ij")
    square = sum(each**2 for each in k)
    along = sum(each * b for each, b in zip(k, OBLIQUE.b0_dir, strict=True))
    plain = torch.where(square > 0, 1 / 3 - along**2 / square, 0.0)
    lost = torch.fft.ifftn(torch.fft.fftn(noise(shape)) * plain)
    assert lost.imag.norm() > 0.05 * lost.real.norm()

    kernel = sampled_kernel(shape, OBLIQUE)
    mirror = kernel.flip((0, 1, 2)).roll((1, 1, 1), (0, 1, 2))
    torch.testing.assert_close(kernel, mirror, rtol=0, atol=1e-15)
    inside = tuple(slice(1, n // 2) for n in shape)
    torch.testing.assert_close(kernel[inside], plain[inside], rtol=0, atol=1e-15)


@settings(deadline=None, max_examples=25)
@given(SHAPES, st.lists(GEOMETRIES, min_size=1, max_size=3), KERNELS, PADDINGS)
def test_batch_of_geometries_equals_loop(
    shape: Shape, geometries: list[Pair], kernel: str, padding: float | None
) -> None:
    x = noise((len(geometries), 2, *shape))
    pairs = [Geometry(*each) for each in geometries]
    batch = Dipole(shape, pairs, kernel, padding, dtype=torch.float64).forward(x)
    for i, geometry in enumerate(geometries):
        for j in range(2):
            single = double(shape, geometry, kernel, padding).forward(x[i, j])
            torch.testing.assert_close(batch[i, j], single, rtol=0, atol=EXACT)


@settings(deadline=None, max_examples=25)
@given(SHAPES, GEOMETRIES, KERNELS, st.sampled_from([1.0, 1.3, 2.0]))
def test_padding_is_padding_and_cropping(
    shape: Shape, geometry: Pair, kernel: str, padding: float
) -> None:
    dipole = double(shape, geometry, kernel, padding)
    large = torch.zeros(dipole.padded_shape, dtype=torch.float64)
    x, y, z = shape
    large[:x, :y, :z] = noise(shape)
    expected = double(dipole.padded_shape, geometry, kernel, None).forward(large)[:x, :y, :z]
    torch.testing.assert_close(dipole.forward(noise(shape)), expected, rtol=0, atol=EXACT)


@settings(deadline=None, max_examples=25)
@given(SHAPES, GEOMETRIES, KERNELS, PADDINGS, st.sampled_from([(0, 1), (1, 2), (0, 2)]))
def test_quarter_turn_equivariance(
    shape: Shape, geometry: Pair, kernel: str, padding: float | None, plane: tuple[int, int]
) -> None:
    x = noise(shape)
    field = double(shape, geometry, kernel, padding).forward(x)
    turned = x.rot90(1, plane)
    rotated = double(tuple(turned.shape), turn(geometry, plane), kernel, padding).forward(turned)
    torch.testing.assert_close(rotated, field.rot90(1, plane), rtol=0, atol=1e-9)


def turn(geometry: Pair, plane: tuple[int, int]) -> Pair:
    """Geometry of a volume after ``rot90(1, plane)``: axis a goes to b, b to -a."""
    a, b = plane
    edges, direction = list(geometry[0]), list(geometry[1])
    edges[a], edges[b] = edges[b], edges[a]
    direction[a], direction[b] = -direction[b], direction[a]
    return tuple(edges), tuple(direction)


@pytest.mark.parametrize("kernel", ["sampled", "prism"])
def test_sign_of_b0_does_not_matter(kernel: str) -> None:
    shape = (6, 7, 8)
    opposite = Geometry(OBLIQUE.voxel_size, tuple(-b for b in OBLIQUE.b0_dir))
    first, second = (dipole_spectrum(shape, g, kernel, torch.float64) for g in (OBLIQUE, opposite))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-15)


def test_values_of_the_sampled_kernel() -> None:
    """2/3 below zero along B0, 1/3 across, 0 at k = 0."""
    kernel = sampled_kernel((8, 8, 8), Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0)))
    assert kernel[0, 0, 0] == 0
    assert float(kernel[0, 0, 1]) == pytest.approx(-2 / 3)
    assert float(kernel[1, 0, 0]) == pytest.approx(1 / 3)


def test_voxel_size_needs_no_resampling() -> None:
    """Only the ratios of the edges count: k enters as a direction."""
    shape, b0_dir = (6, 7, 8), OBLIQUE.b0_dir
    small, large = Geometry((0.5, 0.6, 0.9), b0_dir), Geometry((1.0, 1.2, 1.8), b0_dir)
    torch.testing.assert_close(sampled_kernel(shape, small), sampled_kernel(shape, large))


def test_paramagnetic_source_raises_the_field_along_b0() -> None:
    chi = torch.zeros(17, 17, 17)
    chi[8, 8, 8] = 1.0
    geometry = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 1.0))
    field = Dipole(chi.shape, geometry, "prism", padding=2.0).forward(chi)
    assert field[8, 8, 12] > 0
    assert field[12, 8, 8] < 0


def test_padded_shape_is_fast_and_large_enough() -> None:
    assert padded_shape((11, 13, 17), None) == (11, 13, 17)
    assert padded_shape((11, 13, 17), 1.0) == (12, 15, 18)
    assert all(n >= 26 for n in padded_shape((13, 13, 13), 2.0))


def test_autocast_does_not_reach_the_fft() -> None:
    dipole = Dipole((8, 8, 8), OBLIQUE)
    chi = noise((8, 8, 8)).float()
    expected = dipole.forward(chi)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dipole.forward(chi.bfloat16()).dtype == torch.float32
        torch.testing.assert_close(dipole.forward(chi), expected)


def test_gradient_is_the_adjoint() -> None:
    dipole = Dipole((5, 6, 7), OBLIQUE, padding=1.5, dtype=torch.float64)
    chi = noise((5, 6, 7)).requires_grad_()
    cotangent = noise((5, 6, 7), 4)
    dipole.forward(chi).backward(cotangent)
    torch.testing.assert_close(chi.grad, dipole.adjoint(cotangent), rtol=0, atol=EXACT)


def counted(value: float, made: list[float]) -> Callable[[], Tensor]:
    """A maker of 100 bytes, which says that it was called."""

    def make() -> Tensor:
        made.append(value)
        return torch.full((25,), float(value))

    return make


def test_cache_keeps_what_was_used_last() -> None:
    cache, made = TensorCache(250), []
    for key in (1, 2, 1, 3, 1, 2):
        assert bool((cache.get(key, counted(key, made)) == key).all())
        assert cache.size <= 250
    # 3 drove out 2, which had not been used for longest; then 2 drove out 3
    assert made == [1, 2, 3, 2]
    assert cache.size == 200


def test_cache_does_not_keep_what_is_larger_than_itself() -> None:
    cache, made = TensorCache(150), []
    cache.get("small", counted(1, made))
    for _ in range(2):
        assert cache.get("large", lambda: torch.zeros(100)).shape == (100,)
    cache.get("small", counted(1, made))
    assert made == [1]
    assert cache.size == 100


def test_threads_share_a_cache() -> None:
    cache, made = TensorCache(450), []
    with ThreadPoolExecutor(8) as pool:
        keys = [i % 6 for i in range(600)]
        found = list(pool.map(lambda key: cache.get(key, counted(key, made)), keys))
    assert [float(each[0]) for each in found] == keys
    assert cache.size <= 450


@pytest.mark.parametrize("limit", [0, 10**5])
def test_spectra_do_not_depend_on_the_cache(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, sizes = (10, 12, 14), [(1.0, 1.0, 1.0 + 0.1 * i) for i in range(12)]
    geometries = [Geometry(size, (0.1, 0.2, 0.97)) for size in sizes] * 2
    expected = [dipole_spectrum(shape, g, "prism") for g in geometries]
    small = TensorCache(limit)
    monkeypatch.setattr(dipole_module, "_spectra", small)
    for geometry, spectrum in zip(geometries, expected, strict=True):
        assert torch.equal(dipole_spectrum(shape, geometry, "prism"), spectrum)
        assert small.size <= limit


def test_spectra_of_a_voxel_size_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, shape = [], (9, 8, 7)
    original = dipole_module.prism_components
    monkeypatch.setattr(dipole_module, "_spectra", TensorCache(10**6))
    monkeypatch.setattr(
        dipole_module, "prism_components", lambda *args: calls.append(args) or original(*args)
    )
    for direction in ((0, 0, 1), (0, 1, 0), (0.3, 0.2, 0.9)):
        for size in ((1.0, 1.1, 1.3), (1.0, 1.0, 2.0)):
            dipole_spectrum(shape, Geometry(size, direction), "prism")
    assert calls == [(shape, (1.0, 1.1, 1.3)), (shape, (1.0, 1.0, 2.0))]


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="3-D grid"):
        Dipole((8, 8), OBLIQUE)
    with pytest.raises(ValueError, match="3-D grid"):
        Dipole((8, 8, 1), OBLIQUE)
    with pytest.raises(ValueError, match="factor of at least 1"):
        Dipole((8, 8, 8), OBLIQUE, padding=0.5)
    with pytest.raises(ValueError, match="not on the grid"):
        Dipole((8, 8, 8), OBLIQUE).forward(torch.zeros(8, 8, 9))


@pytest.mark.gpu
def test_gpu_equals_cpu() -> None:
    chi = noise((21, 20, 19)).float()
    cpu = Dipole(chi.shape, OBLIQUE, "prism", padding=1.5).forward(chi)
    gpu = Dipole(chi.shape, OBLIQUE, "prism", padding=1.5, device="cuda").forward(chi.cuda())
    torch.testing.assert_close(gpu.cpu(), cpu, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(10, 12, 14), (9, 8, 7), (11, 10, 13)])
def test_grid_too_large_to_keep_has_the_same_spectrum(shape, monkeypatch) -> None:
    geometry = Geometry((0.8, 1.1, 1.7), (0.3, -0.2, 0.93))
    expected = dipole_spectrum(shape, geometry, "prism", torch.float64)
    monkeypatch.setattr(dipole_module, "_CACHE_BYTES", 10)
    found = dipole_spectrum(shape, geometry, "prism", torch.float64)
    assert torch.allclose(found, expected, atol=1e-12)
    single = dipole_spectrum(shape, geometry, "prism")
    assert torch.allclose(single, expected.float(), atol=1e-6)

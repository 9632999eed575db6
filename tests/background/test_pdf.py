"""PDF: what no dipole outside can explain is kept, at a fraction of the usual FFTs."""

from dataclasses import replace

import pytest
import torch
from scipy.sparse.linalg import LinearOperator, lsmr

from qsmnet.background import crop as crop_module
from qsmnet.background.crop import Crop
from qsmnet.background.pdf import Pdf
from qsmnet.dipole import dipole_spectrum
from qsmnet.errors import InconsistentError

EXACT = Pdf(regularisation=1e-7, tolerance=1e-6, max_iterations=800, gap=8.0, erosion=0.0)


def dipoles(case, gap):
    """Crop, mask on it, and the convolution with the dipole kernel."""
    crop = Crop.of(case.mask, gap, case.geometry)
    spectrum = dipole_spectrum(crop.shape, case.geometry)
    return crop, crop.take(case.mask), lambda volume: crop.filter(volume, spectrum)


@pytest.mark.parametrize("noise", [0.01, "map"])
def test_what_is_left_is_orthogonal_to_every_dipole_outside(scene, noise):
    case = scene((1.0, 1.2, 1.5))
    if noise == "map":
        noise = 0.5 + torch.rand(case.mask.shape, generator=torch.Generator().manual_seed(0))
    local = EXACT(case.total(noise=noise))
    crop, inside, convolve = dipoles(case, EXACT.gap)
    weight = crop.take(local.data_weight())

    def cosines(field):
        """Of the angle between a field and each dipole's, in the weighted product."""
        kernel = crop.back(dipole_spectrum(crop.shape, case.geometry)).square()
        sizes = crop.filter(weight, crop.transform(kernel).real).clamp_min(1e-7).sqrt()
        product = convolve(weight * field) / sizes / (weight * field**2).sum().sqrt()
        return product.abs()[(inside == 0) & (sizes > 1e-3)]

    assert float(cosines(crop.take(case.total().field) * inside).max()) > 0.2
    assert float(cosines(crop.take(local.field)).max()) < 2e-3


def test_no_polynomial_of_the_shim_is_left(scene):
    case = scene()
    local = EXACT(case.total())
    axes = [torch.arange(n) - n // 2 for n in case.mask.shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    for shape in (torch.ones_like(x), x, y, z, x * y, x**2 - y**2, 2 * z**2 - x**2 - y**2):
        wave = shape[local.mask].double()
        left = local.field[local.mask].double()
        assert abs(float(wave @ left / wave.norm() / left.norm())) < 1e-4


def test_tens_of_ffts_do_what_hundreds_did(scene, monkeypatch):
    case = scene(radius=17.0)
    noise = 1e-3
    generator = torch.Generator().manual_seed(1)
    noisy = case.local + case.background + noise * torch.randn(case.mask.shape, generator=generator)
    total, count = case.total(noisy, noise=noise), [0]
    plain = Crop.filter

    def counted(self, volume, spectrum):
        count[0] += 1
        return plain(self, volume, spectrum)

    monkeypatch.setattr(crop_module.Crop, "filter", counted)
    method = Pdf(erosion=0.0)
    field, pairs = method(total).field, count[0]
    reference, hundreds = by_lsmr(case, total, method.gap)
    assert pairs < hundreds / 10
    deep = case.mask & (case.depth() > 3.0)
    for where in (case.mask, deep):
        ours, theirs = (rms(each - case.local, where) for each in (field, reference))
        assert ours < 1.02 * theirs


def rms(volume, where):
    return float((volume[where] - volume[where].mean()).double().square().mean().sqrt())


def by_lsmr(case, total, gap):
    """The usual way: LSMR from zero to a tolerance of 1e-5; the field and its FFT pairs."""
    crop, inside, _ = dipoles(case, gap)
    inside = inside > 0
    spectrum = dipole_spectrum(crop.shape, case.geometry, dtype=torch.float64)

    def convolve(values, on, then):
        volume = torch.zeros(crop.shape, dtype=torch.float64)
        volume[on] = torch.from_numpy(values).double().ravel()
        return crop.back(crop.transform(volume) * spectrum)[then].numpy()

    operator = LinearOperator(
        (int(inside.sum()), int((~inside).sum())),
        matvec=lambda chi: convolve(chi, ~inside, inside),
        rmatvec=lambda residual: convolve(residual, inside, ~inside),
        dtype=float,
    )
    wanted = crop.take(total.field)[inside].double().numpy()
    found = lsmr(operator, wanted, atol=1e-5, btol=1e-5, maxiter=2000)
    left = torch.zeros(crop.shape)
    left[inside] = torch.from_numpy(wanted - operator.matvec(found[0])).float()
    return crop.put(left, total.mask), 2 * found[2]


def test_noisy_voxels_do_not_matter(scene):
    case = scene()
    spoilt = (case.depth() > 5.0) & (case.depth() < 7.0)
    field = case.local + case.background
    noise = torch.where(spoilt, 100.0, 1e-3)
    wrong = torch.where(spoilt, field + 2.0, field)
    there = Pdf()(case.total(wrong, noise=noise)).field
    here = Pdf()(case.total(field, noise=noise)).field
    elsewhere = case.mask & ~spoilt
    assert rms(there - here, elsewhere) < 1e-2 * rms(here, elsewhere)


def test_noise_in_other_units_is_the_same(scene):
    case = scene()
    noise = 0.5 + torch.rand(case.mask.shape, generator=torch.Generator().manual_seed(0))
    one, other = (Pdf()(case.total(noise=unit * noise)).field for unit in (1.0, 2**-10))
    assert rms(one - other, case.mask) < 1e-3 * rms(one, case.mask)


def test_a_finer_grid_of_the_same_head_gives_the_same_field(scene):
    coarse, fine = scene((1.6, 1.6, 1.6)), scene((0.8, 0.8, 0.8))
    errors = []
    for case in (coarse, fine):
        local = Pdf()(case.total())
        deep = case.depth() > 4.0
        errors.append(rms(local.field - case.local, deep) / rms(case.local, deep))
    assert errors[1] == pytest.approx(errors[0], rel=0.5)


def test_the_erosion_is_of_what_is_known_alone(scene):
    case = scene()
    whole, eroded = Pdf(erosion=0.0)(case.total()), Pdf(erosion=3.0)(case.total())
    assert torch.equal(whole.mask, case.mask)
    assert torch.equal(eroded.mask, case.depth() > 3.0)
    assert torch.equal(eroded.field, whole.field * eroded.mask)
    with pytest.raises(InconsistentError, match="nothing is left"):
        Pdf(erosion=40.0)(case.total())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("regularisation", 0.0),
        ("regularisation", float("nan")),
        ("reach", 0.0),
        ("gap", -1.0),
        ("gap", float("nan")),
        ("erosion", -1.0),
        ("shim_order", 3),
        ("tolerance", 1.0),
        ("tolerance", float("nan")),
        ("max_iterations", 0),
    ],
)
def test_parameters_have_bounds(name, value):
    with pytest.raises(ValueError, match=name):
        replace(Pdf(), **{name: value})

"""What each corruption does to field, mask and the noise that is told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qsmnet.background.lbv import Lbv
from qsmnet.background.vsharp import VSharp
from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.simulate import tissue
from qsmnet.simulate.acquisition import Acquisition
from qsmnet.simulate.brain import Brain
from qsmnet.simulate.corruptions.corruption import rms
from qsmnet.simulate.corruptions.erosion import Erosion
from qsmnet.simulate.corruptions.holes import Holes
from qsmnet.simulate.corruptions.remainder import Remainder, polynomial
from qsmnet.simulate.corruptions.removal import Removal
from qsmnet.simulate.corruptions.signal_noise import SignalNoise
from qsmnet.simulate.corruptions.tissue_error import TissueError
from qsmnet.simulate.primitives import Primitives
from qsmnet.simulate.simulator import Simulator

SHAPE = (32, 36, 30)
QUIET = Acquisition(
    voxel_size=(2.2, 2.0, 2.4),
    b0_dir=(0.2, -0.3, 0.93),
    noise=(2e-3, 2e-3),
    noise_free=1.0,
    voids=0.0,
    unmasked=0.0,
)
BRAIN = Simulator({"brain": Brain(erosion=0, random_contrast=0.0)}, None, QUIET, SHAPE)
SOLIDS = replace(BRAIN, sources={"solids": Primitives(unmasked=0.0)})
NOISY = replace(BRAIN, acquisition=replace(QUIET, noise_free=0.0))


@pytest.fixture(scope="module")
def clean():
    return BRAIN.scene(3, 0)


def forward_of(scene):
    return Dipole(SHAPE, scene.geometry, "prism", 2.0).forward


def applied(corruption, scene, **changes):
    record = replace(corruption, probability=1.0).draw(np.random.default_rng(0))
    return corruption.apply({**record, **changes}, scene, forward_of(scene))


def test_scenes_are_the_field_of_what_is_in_the_mask(clean):
    expected = forward_of(clean)(clean.chi)
    assert torch.allclose(clean.local_field, expected * clean.mask, atol=1e-6)


def test_a_lost_rim_is_no_source(clean):
    scene = applied(Erosion(), clean, layers=2, leak=False)
    assert int(scene.mask.sum()) < 0.9 * int(clean.mask.sum())
    assert not (scene.mask & ~clean.mask).any()
    expected = forward_of(scene)(clean.chi * scene.mask)
    assert torch.allclose(scene.local_field, expected * scene.mask, atol=1e-6)
    assert torch.equal(scene.field_support, scene.mask)


def test_a_rim_that_leaks_leaves_the_field_as_it_was(clean):
    scene = applied(Erosion(), clean, layers=2, leak=True)
    assert torch.equal(scene.local_field, clean.local_field * scene.mask)


def test_a_quarter_of_the_mask_stays(clean):
    scene = applied(Erosion(), clean, layers=14, leak=True)
    assert int(scene.mask.sum()) >= 0.25 * int(clean.mask.sum())
    assert not torch.equal(scene.mask, clean.mask)


def test_a_hole_is_a_place_without_field(clean):
    scene = applied(Holes(radius=(4.0, 8.0)), clean, in_mask=False)
    assert torch.equal(scene.mask, clean.mask)
    assert torch.equal(scene.chi, clean.chi)
    hole = clean.field_support & ~scene.field_support
    assert 0 < int(hole.sum()) < 0.5 * int(clean.mask.sum())
    assert torch.equal(scene.local_field, clean.local_field * ~hole)


@pytest.mark.parametrize("leak", [False, True])
def test_a_hole_of_the_mask_holds_no_susceptibility(clean, leak):
    scene = applied(Holes(radius=(4.0, 8.0)), clean, in_mask=True, leak=leak)
    assert not scene.chi[~scene.mask].any()
    source = clean.chi if leak else clean.chi * scene.mask
    assert torch.allclose(scene.local_field, forward_of(scene)(source) * scene.mask, atol=1e-6)


def test_holes_lie_on_strong_sources(clean):
    record = [{"strong": True, "rank": 0.0, "radius": 1.0}]
    scene = applied(Holes(), clean, holes=record, in_mask=False)
    hole = clean.field_support & ~scene.field_support
    assert float(clean.chi[hole].abs().max()) == float(clean.chi.abs().max())


def test_noise_follows_the_signal():
    noisy = NOISY.scene(3, 0)
    scene = applied(SignalNoise(decay=(4.0, 4.0)), noisy)
    # the noise that is told is that of the field
    normal = ((scene.local_field - scene.local_field_exact) / scene.noise)[scene.mask]
    assert float(normal.std()) == pytest.approx(1.0, abs=0.03)
    assert abs(float(normal.mean())) < 0.03
    ratio = (scene.noise / noisy.noise)[scene.mask]
    assert float(ratio.min()) >= 1
    assert float(ratio.max()) > 1.5 * float(ratio.min())
    strong = scene.chi.abs() > scene.chi[scene.mask].abs().quantile(0.99)
    assert float((scene.noise / noisy.noise)[strong].mean()) > float(ratio.mean())


def test_texture_of_the_signal_is_in_the_noise():
    noisy = NOISY.scene(3, 1)
    plain, textured = (applied(SignalNoise(texture=(t, t)), noisy) for t in (0.0, 0.2))
    ratio = (textured.noise / plain.noise)[plain.mask].log()
    assert float(ratio.std()) == pytest.approx(0.2, rel=0.5)
    normal = ((textured.local_field - textured.local_field_exact) / textured.noise)[plain.mask]
    assert float(normal.std()) == pytest.approx(1.0, abs=0.03)


def test_what_is_told_errs_and_the_field_does_not():
    noisy = NOISY.scene(3, 1)
    exact, wrong = (applied(SignalNoise(told=(t, t)), noisy) for t in (0.0, 0.1))
    assert torch.equal(exact.local_field, wrong.local_field)
    ratio = (wrong.noise / exact.noise)[wrong.mask].log()
    assert float(ratio.std()) == pytest.approx(0.1, rel=0.05)
    assert abs(float(ratio.mean())) < 0.01


def test_a_scan_without_noise_stays_without(clean):
    scene = applied(SignalNoise(), clean)
    assert torch.equal(scene.local_field, clean.local_field)
    assert not scene.noise.any()


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("simulator", [BRAIN, SOLIDS], ids=["labels", "levels"])
def test_the_noise_that_is_told_is_the_error(simulator, index):
    scene = simulator.scene(5, index)
    corrupted = applied(TissueError(), scene, strength=0.3)
    error = (corrupted.local_field - scene.local_field)[scene.mask]
    told = corrupted.noise[scene.mask]
    assert float(error.square().mean()) == pytest.approx(float(told.square().mean()), rel=0.02)
    field = rms(scene.local_field_exact, scene.mask)
    assert float(error.square().mean().sqrt()) == pytest.approx(0.3 * field, rel=0.02)


def test_noise_and_error_add_in_quadrature():
    noisy = NOISY.scene(3, 1)
    scene = applied(TissueError(), noisy, strength=0.4)
    residual = (scene.local_field - scene.local_field_exact)[scene.mask]
    told = float(scene.noise[scene.mask].square().mean().sqrt())
    assert float(residual.square().mean().sqrt()) == pytest.approx(told, rel=0.04)


def test_no_strength_is_no_error(clean):
    scene = applied(TissueError(), clean, strength=0.0)
    assert scene is clean


def test_fibres_are_of_white_matter_and_of_orientation(clean):
    one = applied(TissueError(), clean, strength=0.3, weights={"fibres": 1.0})
    error = one.local_field - clean.local_field
    white = clean.segmentation == tissue.WHITE_MATTER
    assert not error[~white].any()
    assert float(error[white].std()) > 0
    turned = replace(clean, geometry=Geometry(clean.geometry.voxel_size, (1.0, 0.0, 0.0)))
    other = applied(TissueError(), turned, strength=0.3, weights={"fibres": 1.0})
    pair = torch.stack([error[white], (other.local_field - clean.local_field)[white]])
    assert float(torch.corrcoef(pair)[0, 1]) < 0.9


def test_half_of_the_kinds_go_through_the_dipole(clean):
    scene = applied(TissueError(), clean, strength=0.3, weights={"offsets_through_d": 1.0})
    error = (scene.local_field - clean.local_field)[clean.mask]
    record = replace(TissueError(), probability=1.0).draw(np.random.default_rng(0))
    offsets = torch.tensor(record["offsets"]["offsets_through_d"])[clean.segmentation.long()]
    expected = forward_of(clean)(offsets * clean.mask)[clean.mask]
    assert float(torch.corrcoef(torch.stack([error, expected]))[0, 1]) > 0.9999


def test_edges_are_where_tissue_changes(clean):
    scene = applied(TissueError(), clean, strength=0.3, weights={"edges": 1.0})
    error = (scene.local_field - clean.local_field).abs()
    labels = clean.segmentation.float()
    inside = torch.nn.functional.max_pool3d(labels[None], 3, 1, 1)
    flat = inside == -torch.nn.functional.max_pool3d(-labels[None], 3, 1, 1)
    flat = flat[0] & clean.mask
    assert bool(flat.any())
    assert float(error[flat].max()) < 1e-7


def test_a_remainder_is_harmonic(clean):
    terms = Remainder(probability=1.0).draw(np.random.default_rng(1))["terms"]
    assert sorted({each["degree"] for each in terms}) == [1, 2, 3, 4]
    field = polynomial(terms, clean).double()
    laplacian, scale = 0.0, 0.0
    for axis, edge in enumerate(clean.geometry.voxel_size):
        second = (field.roll(1, axis) + field.roll(-1, axis) - 2 * field) / edge**2
        laplacian, scale = laplacian + second, scale + second.abs()
    inner = (slice(3, -3),) * 3
    assert float(laplacian[inner].abs().max()) < 0.02 * float(scale[inner].max())


def test_a_remainder_has_its_strength(clean):
    scene = applied(Remainder(), clean, strength=0.15)
    added = rms(scene.local_field - clean.local_field, clean.mask)
    assert added == pytest.approx(0.15 * rms(clean.local_field, clean.mask), rel=1e-3)
    assert torch.equal(scene.noise, clean.noise)


@pytest.mark.parametrize("method", ["vsharp", "lbv"])
def test_removal_takes_the_background_off(clean, method):
    removal = Removal({"vsharp": VSharp(radii=(8, 6, 4, 3)), "lbv": Lbv()}, strength=(8.0, 8.0))
    scene = applied(removal, clean, method=method)
    assert 0.25 < int(scene.mask.sum()) / int(clean.mask.sum()) < 1
    assert not (scene.mask & ~clean.mask).any()
    left = rms(scene.local_field - clean.local_field, scene.mask)
    # of a background eight times as strong as the field; some of the field went with it
    assert left < 1.0 * rms(clean.local_field, scene.mask)
    pair = torch.stack([scene.local_field[scene.mask], clean.local_field[scene.mask]])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.65


def test_a_mask_too_small_for_a_method_has_no_background(clean):
    removal = Removal({"vsharp": VSharp(radii=(200.0,))})
    assert applied(removal, clean) is clean


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Erosion, {"probability": 2}),
        (Erosion, {"layers": (0, 2)}),
        (Holes, {"radius": (3, 1)}),
        (Holes, {"strong": -1}),
        (SignalNoise, {"signal": (0, 1)}),
        (SignalNoise, {"decay": (2, 1)}),
        (SignalNoise, {"told": (0.1, 0)}),
        (SignalNoise, {"texture": (0, 2)}),
        (TissueError, {"strength": (0.5, 0.1)}),
        (Remainder, {"degree": 0}),
        (Remainder, {"strength": (-1, 1)}),
        (Removal, {"methods": {}}),
        (Removal, {"methods": {"lbv": Lbv()}, "strength": (0, 1)}),
    ],
)
def test_settings_are_checked(kind, settings):
    name = [each for each in settings if each != "methods" or len(settings) == 1][-1]
    with pytest.raises(ValueError, match=name):
        kind(**settings)

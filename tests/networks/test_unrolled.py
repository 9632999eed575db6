"""The unrolled network: what it is before training, its symmetries, what its settings do."""

import pytest
import torch
from jaxtyping import TypeCheckError

from qsmnet.dipole import Dipole, dipole_spectrum
from qsmnet.geometry import Geometry
from qsmnet.inversion.tikhonov import Tikhonov
from qsmnet.networks.problem import Problem
from qsmnet.networks.unrolled import Unrolled
from qsmnet.volumes import LocalField

#: Fast sizes: padded by nothing they stay as they are.
SHAPE = (16, 15, 12)
AXES = (-3, -2, -1)
OBLIQUE = Geometry((0.9, 1.1, 1.6), (0.2, -0.3, 0.93))
SMALL = {"iterations": 2, "base": 4, "levels": 2, "convolutions": 1, "start_iterations": 4}
#: Cubes of voxels as channels, and the estimate near the cone.
FOLDED = {"fold": 2, "widest": 6, "bands": [0.1]}
#: U-Nets on the scan's own grid.
AS_IT_IS = {"upright": False}
STARTS = ("zero", "tikhonov", "tkd", "tv")


def untrained(**settings):
    return Unrolled(**SMALL | {"kernel": "sampled"} | settings).eval()


def error(chi, truth, mask):
    inside = mask > 0
    wrong = (chi - truth)[inside]
    return float((wrong - wrong.mean()).norm() / (truth[inside] - truth[inside].mean()).norm())


@pytest.fixture
def noiseless(case):
    """An object whose field is exact, known in its mask alone; and the truth."""
    field, support, noise, mask, geometry = case.item(1)
    chi = case.chi[1:2] * mask
    field = Dipole(tuple(chi.shape[-3:]), geometry, padding=2).forward(chi) * mask
    return (field, support, 0 * noise, mask, geometry), chi


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("final", [True, False])
@torch.no_grad()
def test_untrained_it_is_iterated_tikhonov(iterations, final):
    """Known everywhere, without noise: x = b / D (1 - (mu / (D^2 + mu))^n)."""
    field = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    field -= field.mean()
    everywhere = torch.ones_like(field)
    network = untrained(
        iterations=iterations, final_consistency=final, start="zero", padding=1.0, base=2
    )
    chi = network(field, everywhere, 0 * field, everywhere, [OBLIQUE])
    d = dipole_spectrum(SHAPE, OBLIQUE, dtype=torch.float64)
    d[0, 0, 0] = 1.0
    gain = (1 - (0.05 / (d**2 + 0.05)) ** (iterations + final)) / d
    gain[0, 0, 0] = 0.0
    expected = torch.fft.irfftn(torch.fft.rfftn(field.double(), dim=AXES) * gain, SHAPE, AXES)
    assert torch.allclose(chi.double(), expected, atol=1e-4 * float(expected.std()))


@pytest.mark.parametrize("fill", [True, False])
@torch.no_grad()
def test_first_iteration_from_nothing_is_tikhonov_in_the_mask(case, fill):
    field, support, noise, mask, geometry = case.item(1)
    network = untrained(iterations=1, start="zero", final_consistency=False, fill=fill)
    chi = network(field, support, 0 * noise, mask, geometry)[0, 0]
    inside = mask[0, 0] > 0
    centred = (field[0, 0] - field[0, 0][inside].mean()) * inside
    local = LocalField(centred, inside, geometry[0])
    expected = Tikhonov(0.05, padding=1.25)(local).chi
    assert torch.allclose(chi, expected, atol=1e-5 * float(expected.abs().max()))


@torch.no_grad()
def test_mu_grows_with_the_noise(case):
    field, support, noise, mask, geometry = case.item(0)
    network = untrained()
    level = Problem.of(field, support, noise, mask, geometry, "sampled", 1.25, "median").level
    still, noisy = (float(network.strengths[0](each)) for each in (0 * level, level))
    assert still == pytest.approx(0.05, rel=1e-4)
    assert noisy == pytest.approx(0.05 + float(level) ** 2, rel=1e-4)


@pytest.mark.parametrize("start", STARTS)
@torch.no_grad()
def test_iterations_fit_the_known_field_better_and_better(noiseless, start):
    inputs, _ = noiseless
    network = untrained(start=start, iterations=6, final_consistency=False)
    problem = Problem.of(*inputs, "sampled", 1.25, "median")
    misfits = [
        float(problem.residual(chi / problem.scale).norm()) for chi in network.estimates(*inputs)
    ]
    assert misfits == sorted(misfits, reverse=True)


@torch.no_grad()
def test_unknown_field_that_is_filled_beats_zeros(noiseless):
    inputs, truth = noiseless
    filled, zeros = (
        error(untrained(iterations=8, fill=fill)(*inputs), truth, inputs[3])
        for fill in (True, False)
    )
    assert filled < 0.8 * zeros


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("shape", [{}, FOLDED, AS_IT_IS])
@torch.no_grad()
def test_three_times_the_field_and_noise_is_three_times_the_map(case, randomised, start, shape):
    network = randomised(untrained(start=start, **shape))
    field, support, noise, mask, geometry = case.inputs
    chi = network(*case.inputs)
    scaled = network(3 * field, support, 3 * noise, mask, geometry)
    assert torch.allclose(scaled / 3, chi, atol=1e-5 * float(chi.abs().max()))


@torch.no_grad()
def test_a_constant_in_the_field_is_none_of_the_map(case, randomised):
    network = randomised(untrained())
    field, support, noise, mask, geometry = case.inputs
    chi = network(*case.inputs)
    offset = network(field + 0.05 * support, support, noise, mask, geometry)
    assert torch.allclose(offset, chi, atol=1e-3 * float(chi.abs().max()))


@torch.no_grad()
def test_result_is_in_the_mask_alone(case, randomised):
    network = randomised(untrained())
    field, _, noise, mask, geometry = case.inputs
    everywhere = torch.ones_like(mask)
    for estimate in network.estimates(field, everywhere, noise, mask, geometry):
        assert not estimate[mask == 0].any()
        assert estimate[mask > 0].any()


@pytest.mark.parametrize("start", STARTS)
@torch.no_grad()
def test_quarter_turn_of_volume_and_b0_turns_the_map(case, start):
    field, support, noise, mask, _ = case.item(1)
    (dx, dy, dz), (bx, by, bz) = OBLIQUE.voxel_size, OBLIQUE.b0_dir
    # about the third axis: new x is old y, new y is minus old x
    turned_geometry = Geometry((dy, dx, dz), (by, -bx, bz))
    network = untrained(start=start)
    chi = network(field, support, noise, mask, [OBLIQUE])
    turned = (v.transpose(-3, -2).flip(-2) for v in (field, support, noise, mask))
    expected = chi.transpose(-3, -2).flip(-2)
    result = network(*turned, [turned_geometry])
    assert torch.allclose(result, expected, atol=1e-4 * float(chi.abs().max()))
    wrong = network(field, support, noise, mask, [turned_geometry])
    assert not torch.allclose(wrong, chi, atol=0.05 * float(chi.abs().max()))


@pytest.mark.parametrize(("padding", "tolerance"), [(1.25, 0.05), (2.0, 0.02)])
@torch.no_grad()
def test_empty_grid_around_the_object_matters_little(case, randomised, padding, tolerance):
    # whole cells of the U-Net; what is left is the periodic grid of the FFTs
    field, support, noise, mask, geometry = case.item(1)
    for network in (untrained(padding=padding), randomised(untrained(padding=padding))):
        chi = network(field, support, noise, mask, geometry)
        larger = [torch.nn.functional.pad(v, (4,) * 6) for v in (field, support, noise, mask)]
        result = network(*larger, geometry)[..., 4:-4, 4:-4, 4:-4]
        assert float((result - chi).norm() / chi.norm()) < tolerance


@pytest.mark.parametrize("shape", [{}, FOLDED | AS_IT_IS, FOLDED | {"shared": True}])
def test_gradient_reaches_every_parameter_after_one_step(case, shape):
    torch.manual_seed(0)
    network = Unrolled(**SMALL | shape)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        (network(*case.inputs) - case.chi).square().mean().backward()
        optimizer.step()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@torch.no_grad()
def test_autocast_keeps_the_steps_to_the_data_in_float32(case, randomised):
    network = untrained()
    exact = network.estimates(*case.inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network.estimates(*case.inputs)
    # the corrections are zero, all else is the same to the last bit
    assert all(torch.equal(a, b) for a, b in zip(exact, half, strict=True))
    randomised(network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        chi = network(*case.inputs)
    assert chi.dtype == torch.float32
    assert not torch.equal(chi, network(*case.inputs))
    assert torch.allclose(chi, network(*case.inputs), atol=0.05 * float(chi.abs().max()))


@torch.no_grad()
def test_bands_are_the_estimate_near_the_cone(case):
    made = untrained(bands=[0.05, 0.2])
    problem = made.problem(*case.inputs)
    seen = made.seen(problem, 0, made.begin(problem), None)
    assert seen.shape[1] == 9
    d = problem.dipole.spectrum
    for channel, width in ((7, 0.05), (8, 0.2)):
        expected = seen[:, :1] - problem.dipole.filter(seen[:, :1], d**2 / (d**2 + width**2))
        found = seen[:, channel : channel + 1]
        assert torch.allclose(found, expected * problem.mask, atol=1e-5 * float(seen.abs().max()))
    narrow, wide = (seen[:, channel].norm() for channel in (7, 8))
    assert 0 < narrow < wide < seen[:, 0].norm()


@torch.no_grad()
def test_an_upright_scan_needs_no_turning(case, randomised):
    """The first item is upright, the second is not."""
    turned, plain = (randomised(untrained(upright=upright)) for upright in (True, False))
    for index, alike in ((0, True), (1, False)):
        maps = [network(*case.item(index)) for network in (turned, plain)]
        assert torch.allclose(*maps, atol=1e-5 * float(maps[0].abs().max())) == alike


@torch.no_grad()
def test_items_of_a_batch_are_turned_each_by_itself(case, randomised):
    network = randomised(untrained())
    together = network(*case.inputs)
    for index in range(2):
        alone = network(*case.item(index))
        assert torch.allclose(together[index], alone[0], atol=1e-4 * float(alone.abs().max()))


@torch.no_grad()
def test_what_a_few_voxels_change_is_shown_within_bounds(case):
    """One strong source in an empty field: the step to the data changes little else."""
    field, support, noise, mask, geometry = case.item(1)
    chi = torch.zeros_like(mask)
    chi[..., 6, 8, 5] = 3.0
    field = Dipole(tuple(chi.shape[-3:]), geometry, padding=2).forward(chi) * mask
    made = untrained(start="tkd")
    problem = made.problem(field, support, 0 * noise, mask, geometry)
    seen = made.seen(problem, 0, made.begin(problem), None)
    assert float(seen[:, 1].abs().max()) == 5.0
    assert float(seen[:, 3].abs().max()) <= 5.0


def test_shared_weights_are_those_of_one_iteration():
    one, shared, own = (
        sum(p.numel() for p in Unrolled(**SMALL | changes).parameters())
        for changes in ({"iterations": 1}, {"shared": True}, {})
    )
    assert shared == one < own


@pytest.mark.parametrize(("final", "estimates"), [(True, 3), (False, 2)])
@torch.no_grad()
def test_estimates_end_with_the_result(case, randomised, final, estimates):
    network = randomised(untrained(final_consistency=final))
    found = network.estimates(*case.inputs)
    assert len(found) == estimates
    assert torch.equal(found[-1], network(*case.inputs))


def test_sizes_are_those_of_the_documentation():
    ours = {"fold": 2, "bands": [0.05, 0.15], "final_consistency": False}
    base = {"iterations": 1, "base": 32, "levels": 4, "widest": 128, **ours}
    tiny = {"iterations": 1, "base": 16, "levels": 4, "widest": 64, **ours}
    literature = {"iterations": 3, "base": 32, "levels": 1, "convolutions": 16, "shared": True}
    sizes = [
        sum(p.numel() for p in Unrolled(**each).parameters()) for each in (base, tiny, literature)
    ]
    assert sizes == [3_510_986, 893_802, 448_999]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"iterations": 0}, "iterations must be a whole number"),
        ({"base": 0}, "base must be a whole number"),
        ({"levels": 0}, "levels must be a whole number"),
        ({"fold": 0}, "fold must be a whole number"),
        ({"bands": [0.7]}, "bands must lie in"),
        ({"widest": 0}, "widest must be a whole number"),
        ({"start_iterations": 0}, "start_iterations must be"),
        ({"padding": 0.5}, "padding must lie in"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        Unrolled(**SMALL | settings)


@pytest.mark.parametrize(
    "settings", [{"start": "medi"}, {"scale": "mean"}, {"start_scale": "mean"}, {"levels": 1.5}]
)
def test_words_that_are_none_are_refused(settings):
    # by the types where those are checked, else in words
    with pytest.raises((ValueError, TypeCheckError)):
        Unrolled(**SMALL | settings)

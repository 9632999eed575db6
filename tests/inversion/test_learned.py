"""A network from disk as an inverter."""

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.errors import WeightsError
from qsmnet.geometry import Geometry
from qsmnet.inversion.learned import LearnedInverter
from qsmnet.networks.kqsm import KQSM
from qsmnet.networks.unet import UNet
from qsmnet.networks.unrolled import Unrolled
from qsmnet.volumes import LocalField
from qsmnet.weights.store import save_weights

SHAPE = (17, 14, 19)
OBLIQUE = Geometry((0.9, 1.1, 1.6), (0.2, -0.3, 0.93))
SMALL = {"iterations": 2, "base": 4, "levels": 2, "convolutions": 1, "start_iterations": 4}
CONFIGS = {
    "unet": {"_target_": "qsmnet.networks.unet.UNet", "channels": [4, 6]},
    "kqsm": {"_target_": "qsmnet.networks.kqsm.KQSM", "width": 4, "stages": 2},
    "unrolled": {"_target_": "qsmnet.networks.unrolled.Unrolled", **SMALL},
}
NETWORKS = {
    "unet": lambda: UNet((4, 6)),
    "kqsm": lambda: KQSM(width=4, stages=2),
    "unrolled": lambda: Unrolled(**SMALL),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Paths of tiny networks with random weights."""
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for name, build in NETWORKS.items():
        torch.manual_seed(0)
        state = {k: 0.1 * torch.randn_like(v) for k, v in build().state_dict().items()}
        paths[name] = folder / f"{name}.safetensors"
        trained_for = {"voxel_size_mm": [0.5, 2.0], "tilt_degrees": 10.0}
        trained_for["noise_ppm"] = [0.001, 0.01]
        save_weights(paths[name], state, {"network": CONFIGS[name], "trained_for": trained_for})
    return paths


@pytest.fixture(params=NETWORKS)
def inverter(request, saved):
    return LearnedInverter(str(saved[request.param]))


def scan(shape=SHAPE, batch=(), geometry=OBLIQUE, **changes):
    generator = torch.Generator().manual_seed(0)
    axes = [torch.linspace(-1.3, 1.3, n) for n in shape]
    mask = sum(a**2 for a in torch.meshgrid(*axes, indexing="ij")) < 1
    mask = mask.expand(*batch, *shape)
    chi = 0.1 * torch.randn(*batch, *shape, generator=generator) * mask
    field = Dipole(shape, geometry, padding=1.5).forward(chi) * mask
    return LocalField(
        **{"field": field, "mask": mask, "geometry": geometry, "noise": 0.002} | changes
    )


def test_map_is_finite_and_zero_outside(inverter):
    local = scan()
    result = inverter(local)
    assert result.chi.shape == SHAPE
    assert result.chi.dtype == torch.float32
    assert result.chi.isfinite().all()
    assert not result.chi[~local.mask].any()
    assert result.chi[local.mask].std() > 0
    assert result.mask is local.mask


def test_batch_equals_its_items(inverter):
    local = scan(batch=(2, 1))
    chi = inverter(local).chi
    assert chi.shape == (2, 1, *SHAPE)
    for i in range(2):
        single = LocalField(local.field[i, 0], local.mask[i, 0], OBLIQUE, noise=0.002)
        assert torch.equal(inverter(single).chi, chi[i, 0])


def test_same_result_again(inverter):
    assert torch.equal(inverter(scan()).chi, inverter(scan()).chi)


def test_noise_map_equals_its_number(inverter):
    local = scan()
    as_map = scan(noise=torch.full(SHAPE, 0.002))
    assert torch.allclose(inverter(as_map).chi, inverter(local).chi, atol=1e-7)
    assert not torch.allclose(inverter(scan(noise=0.05)).chi, inverter(local).chi, atol=1e-7)


def test_unknown_noise_is_none(inverter):
    assert torch.equal(inverter(scan(noise=None)).chi, inverter(scan(noise=0.0)).chi)


def test_field_is_used_where_it_is_known_alone(inverter):
    local = scan()
    elsewhere = scan(field=local.field + 0.3 * ~local.mask)
    assert torch.allclose(inverter(elsewhere).chi, inverter(local).chi, atol=1e-6)
    known = inverter(scan(field=elsewhere.field, field_support=torch.ones(SHAPE)))
    assert not torch.allclose(known.chi, inverter(local).chi, atol=1e-4)


def test_double_precision_comes_back_as_double(inverter):
    local = scan()
    double = LocalField(local.field.double(), local.mask, OBLIQUE, noise=0.002)
    result = inverter(double)
    assert result.chi.dtype == torch.float64
    assert torch.allclose(result.chi.float(), inverter(local).chi, atol=1e-6)


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 0, 1)])
def test_order_of_the_axes_in_the_file_does_not_matter(inverter, order):
    local, back = scan(), [order.index(axis) for axis in range(3)]
    voxel, b0 = (tuple(v[i] for i in order) for v in (OBLIQUE.voxel_size, OBLIQUE.b0_dir))
    turned = LocalField(
        local.field.permute(order), local.mask.permute(order), Geometry(voxel, b0), noise=0.002
    )
    result = inverter(turned)
    assert torch.allclose(result.chi.permute(back), inverter(local).chi, atol=1e-6)
    assert result.flags == inverter(local).flags


VOID = (8, 7, 9)


def with_void(field, noise):
    """Scan with a field and a noise of one voxel, and the same without that voxel."""
    local = scan()
    deviations, fields, known = torch.full(SHAPE, 0.002), local.field.clone(), local.mask.clone()
    deviations[VOID], fields[VOID], known[VOID] = noise, field, False
    void = scan(noise=deviations, field=fields)
    return void, scan(noise=torch.full(SHAPE, 0.002), field_support=known)


@pytest.mark.parametrize("name", ["kqsm", "unet"])
def test_signal_voids_are_unknown_to_a_network_that_does_not_weigh_them(saved, name):
    inverter = LearnedInverter(str(saved[name]))
    void, cut = with_void(field=5.0, noise=0.2)
    assert torch.allclose(inverter(void).chi, inverter(cut).chi, atol=1e-6)


def test_signal_voids_are_data_of_their_weight_to_a_network_that_weighs_them(saved):
    """Six times the noise is a thirty-sixth of the weight; a thousand times is nearly none."""
    inverter = LearnedInverter(str(saved["unrolled"]))
    change = {}
    for noise in (0.012, 2.0):
        void, cut = with_void(field=0.5, noise=noise)
        change[noise] = float((inverter(void).chi - inverter(cut).chi).norm())
    assert 0 < change[2.0] < 0.05 * change[0.012]


@pytest.mark.parametrize("name", ["kqsm", "unrolled"])
def test_network_with_a_field_of_view_does_not_see_the_empty_grid_around(saved, name):
    inverter, local = LearnedInverter(str(saved[name])), scan()
    pads = (5, 0, 2, 9, 0, 4)
    field, mask = (torch.nn.functional.pad(v, pads) for v in (local.field, local.mask))
    larger = inverter(LocalField(field, mask, OBLIQUE, noise=0.002)).chi
    x, y, z = SHAPE
    assert torch.allclose(larger[0:x, 2 : 2 + y, 5 : 5 + z], inverter(local).chi, atol=1e-6)
    assert not larger[~mask].any()


def test_field_of_view_is_that_of_the_weights(saved, tmp_path):
    """The network is applied on a grid of ``field_of_view`` times the object's box."""
    seen = []
    inverter, local = LearnedInverter(str(saved["kqsm"])), scan()
    from qsmnet.inversion.learned import load_network

    network, _ = load_network(str(saved["kqsm"]), "cpu", "sampled")
    handle = network.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    inverter(local)
    handle.remove()
    inside = local.mask.nonzero()
    extent = (inside.amax(0) - inside.amin(0) + 1).tolist()
    for size, n in zip(seen[0][-3:], extent, strict=True):
        assert size % 2 == 0
        assert 1.25 * n - 1 <= size <= 1.25 * n * 1.25 + 2


def test_scan_within_the_training_range_has_no_flag(saved):
    axial = Geometry((1, 1, 1.5), (0, 0.1, 1))
    assert LearnedInverter(str(saved["unet"]))(scan(geometry=axial)).flags == ()


def test_scan_outside_of_the_training_range_is_flagged(saved):
    (flag,) = LearnedInverter(str(saved["unet"]))(scan()).flags
    assert flag == "B0 lies 21 degrees from the third axis; trained up to 10"
    thick = Geometry((1, 1, 3), (0, 0, 1))
    (flag,) = LearnedInverter(str(saved["unet"]))(scan(geometry=thick)).flags
    assert "voxel size (1.0, 1.0, 3.0) mm is outside the 0.5 to 2.0 mm" in flag


def test_noise_outside_of_the_training_range_is_flagged(saved):
    inverter = LearnedInverter(str(saved["unet"]))
    axial = Geometry((1, 1, 1.5), (0, 0.1, 1))
    for noise in (0.05, torch.full(SHAPE, 0.05)):
        (flag,) = inverter(scan(geometry=axial, noise=noise)).flags
        assert flag == "typical noise of 0.05 ppm is outside the 0.001 to 0.01 ppm of the training"
    (flag,) = inverter(scan(geometry=axial, noise=None)).flags
    assert flag.startswith("noise is unknown")


def test_network_without_a_noise_input_does_not_ask_for_it(saved, monkeypatch):
    monkeypatch.setattr(UNet, "takes_noise", False, raising=False)
    axial = Geometry((1, 1, 1.5), (0, 0.1, 1))
    assert LearnedInverter(str(saved["unet"]))(scan(geometry=axial, noise=None)).flags == ()


def test_missing_weights_are_an_error_at_the_call(tmp_path):
    inverter = LearnedInverter(str(tmp_path / "none.safetensors"))
    with pytest.raises(WeightsError, match="file not found"):
        inverter(scan())

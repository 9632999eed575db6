"""What every inverter must do, whoever wrote it: parametrised over configs/inverter/*.yaml."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from qsmnet.cli.compose import available, compose, settings
from qsmnet.geometry import Geometry
from qsmnet.inversion.inverter import Inverter
from qsmnet.volumes import LocalField, Susceptibility
from qsmnet.weights.store import released_names

CLASSICAL = tuple(n for n in available("inverter") if "weights" not in settings("inverter", n))
_RELEASED = tuple(released_names())
# lambda of total variation is in ppm mm and goes with the field
_SCALED_WITH_FIELD: Mapping[str, Mapping[str, float]] = {
    "rts": {"regularisation": 0.002},
    **{name: {"regularisation": 2e-5} for name in ("hdqsm", "medi", "nltv", "tgv", "tv")},
}
_SCALED_AGAINST_FIELD: Mapping[str, Mapping[str, float]] = {"l1": {"noise_gain": 10.0}}


def inverter(name: str, **overrides: float) -> Inverter:
    parameters: Mapping[str, Any] = settings("inverter", name)
    if "weights" in parameters and parameters["weights"] not in _RELEASED:
        pytest.skip(f"weights of {name} are not released")
    return compose("inverter", name, [f"{k}={v}" for k, v in overrides.items()])


@pytest.fixture(params=available("inverter"))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize(
    ("shape", "voxel_size", "b0_dir"),
    [
        ((24, 26, 22), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)),
        ((23, 25, 21), (1.0, 1.0, 1.0), (0.15, -0.2, 0.95)),
        ((26, 23, 20), (0.8, 0.9, 1.6), (0.5, 0.1, 0.8)),
    ],
    ids=["even", "odd oblique", "anisotropic"],
)
def test_output(
    name: str, shape: tuple, voxel_size: tuple, b0_dir: tuple, phantom: Callable
) -> None:
    """On the input's grid, finite, zero outside the mask, and not the trivial answer."""
    case = phantom(shape, voxel_size, b0_dir, noise=0.001)
    result = inverter(name)(case.local)
    assert isinstance(result, Susceptibility)
    assert result.chi.shape == case.local.field.shape
    assert result.chi.dtype == torch.float32
    assert bool(result.chi.isfinite().all())
    assert not result.chi[~case.local.mask].any()
    assert torch.equal(result.mask, case.local.mask)
    assert case.error(result.chi) < 1.0


def test_deterministic_and_leaves_its_input_alone(name: str, phantom: Callable) -> None:
    local = phantom((24, 23, 22), noise=0.001).local
    before = local.field.clone(), local.mask.clone()
    method = inverter(name)
    first, second = method(local).chi, method(local).chi
    assert torch.equal(first, second)
    assert torch.equal(local.field, before[0])
    assert torch.equal(local.mask, before[1])


@pytest.mark.parametrize("scale", [0.01, 50.0])
def test_homogeneous(name: str, scale: float, phantom: Callable) -> None:
    """Field, noise and whatever is in ppm times s: chi times s."""
    local = phantom((24, 23, 22), noise=0.001).local
    scaled = replace(local, field=local.field * scale, noise=local.noise * scale)
    units = {k: v * scale for k, v in _SCALED_WITH_FIELD.get(name, {}).items()}
    units |= {k: v / scale for k, v in _SCALED_AGAINST_FIELD.get(name, {}).items()}
    expected = inverter(name)(local).chi * scale
    found = inverter(name, **units)(scaled).chi
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_batch_equals_loop(name: str, phantom: Callable) -> None:
    items = [phantom((22, 23, 24), noise=0.001, seed=seed).local for seed in (1, 2)]
    batch = LocalField(
        field=torch.stack([item.field for item in items]),
        mask=torch.stack([item.mask for item in items]),
        geometry=items[0].geometry,
        noise=0.001,
    )
    method = inverter(name)
    together = method(batch).chi
    for item, chi in zip(items, together, strict=True):
        torch.testing.assert_close(chi, method(item).chi, rtol=0, atol=1e-5)


def test_what_is_outside_of_the_field_support_is_not_read(name: str, phantom: Callable) -> None:
    local = phantom((24, 23, 22)).local
    method = inverter(name)
    spoiled = replace(local, field=torch.where(local.mask, local.field, 7.0))
    torch.testing.assert_close(method(spoiled).chi, method(local).chi, rtol=0, atol=1e-6)


def test_zero_field_gives_zero(name: str, phantom: Callable) -> None:
    local = phantom((22, 23, 24)).local
    chi = inverter(name)(replace(local, field=torch.zeros_like(local.field))).chi
    assert bool(chi.isfinite().all())
    assert chi.abs().max() < 1e-3


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("plane", [(0, 1), (1, 2), (0, 2)])
def test_quarter_turn(name: str, plane: tuple[int, int], phantom: Callable) -> None:
    """Turned with its geometry, a scan gives the turned map."""
    local = phantom((24, 26, 22), (0.9, 1.0, 1.3), noise=0.001).local
    chi = inverter(name)(local).chi
    turned = inverter(name)(turn(local, plane)).chi
    scale = chi.abs().max()
    torch.testing.assert_close(turned / scale, chi.rot90(1, plane) / scale, rtol=0, atol=2e-3)


def turn(local: LocalField, plane: tuple[int, int]) -> LocalField:
    a, b = plane
    edges, direction = list(local.geometry.voxel_size), list(local.geometry.b0_dir)
    edges[a], edges[b] = edges[b], edges[a]
    direction[a], direction[b] = -direction[b], direction[a]
    return LocalField(
        field=local.field.rot90(1, plane),
        mask=local.mask.rot90(1, plane),
        geometry=Geometry(tuple(edges), tuple(direction)),
        noise=local.noise,
    )

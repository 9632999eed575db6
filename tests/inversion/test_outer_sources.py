"""What a background removal took of the brain's own field is put back for the networks."""

from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole
from qsmnet.geometry import Geometry
from qsmnet.inversion.outer_sources import without_outer_sources
from qsmnet.volumes import LocalField

SHAPE = (36, 34, 32)
GEOMETRY = Geometry((1.0, 1.2, 1.5), (0.1, -0.2, 0.97))


@pytest.fixture(scope="module")
def fields():
    """Field of the sources in a ball, and of one with a source off it, harmonic in the ball."""
    axes = [torch.linspace(-1.6, 1.6, n) for n in SHAPE]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    mask = x**2 + y**2 + z**2 < 1
    inside = 0.1 * ((x - 0.3) ** 2 + y**2 + z**2 < 0.1) * mask
    outside = 1.0 * (((x - 1.2) ** 2 + y**2 + (z - 0.4) ** 2) < 0.04) * ~mask
    dipole = Dipole(SHAPE, GEOMETRY, padding=1.5)
    inner, outer = (dipole.forward(each.float()) * mask for each in (inside, outside))
    local = LocalField(inner + outer, mask, GEOMETRY, noise=1e-4, harmonic_removed=True)
    return local, inner, outer


def test_field_of_the_sources_in_the_mask_is_left(fields):
    local, inner, outer = fields
    left = without_outer_sources(local, "sampled")
    assert not left.harmonic_removed
    wrong = (left.field - inner)[local.mask]
    # a constant is in no data
    assert (wrong - wrong.mean()).norm() < 0.25 * outer[local.mask].norm()


def test_a_field_that_is_whole_stays_as_it_is(fields):
    local = replace(fields[0], harmonic_removed=False)
    assert without_outer_sources(local, "sampled") is local


def test_goes_with_the_unit_of_the_field(fields):
    local = fields[0]
    tripled = replace(local, field=3 * local.field, noise=3e-4)
    one, three = (without_outer_sources(each, "sampled").field for each in (local, tripled))
    assert torch.allclose(three, 3 * one, atol=1e-5 * float(one.abs().max()))


def test_a_batch_equals_its_items(fields):
    local = fields[0]
    fields_, masks = (torch.stack([v, v.flip(0)]) for v in (local.field, local.mask))
    both = without_outer_sources(replace(local, field=fields_, mask=masks), "sampled").field
    for i in range(2):
        item = replace(local, field=fields_[i], mask=masks[i])
        assert torch.allclose(both[i], without_outer_sources(item, "sampled").field, atol=1e-7)


def test_an_empty_field_stays_empty(fields):
    local = replace(fields[0], field=torch.zeros(SHAPE))
    assert not without_outer_sources(local, "sampled").field.any()

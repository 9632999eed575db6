"""What every masking method does, whatever its idea; one test a property, over the YAML files."""

from dataclasses import fields, replace

import pytest
import torch
from mask_shapes import dice, head

from qsmnet.cli.compose import available, compose
from qsmnet.errors import InconsistentError
from qsmnet.mask.mask import Mask

METHODS = available("mask")
#: These find whatever is bright or coherent: the scalp, too.
NO_BRAIN_EXTRACTION = {"magnitude", "otsu", "quality", "whole"}


@pytest.fixture(scope="module", params=METHODS)
def name(request):
    return request.param


def method(name):
    """The method; what only wraps a brain extraction is given the true brain."""
    built = compose("mask", name)
    parts = {each.name for each in fields(built)} & {"brain", "object"}
    return replace(built, **dict.fromkeys(parts, head().known))


@pytest.fixture(scope="module")
def found(name):
    return method(name)(head().evidence)


def test_it_is_a_mask_of_the_grid(name, found):
    assert isinstance(compose("mask", name), Mask)
    assert found.dtype == torch.bool
    assert found.shape == head().brain.shape


def test_it_holds_the_brain(name, found):
    truth = head()
    assert float((found & truth.core).sum() / truth.core.sum()) > 0.999
    if name not in NO_BRAIN_EXTRACTION:
        assert dice(found, truth.brain) > 0.9


def test_neither_unit_nor_nan_in_air_matter(name, found):
    other = 1000 * head().evidence.magnitude
    other[:2, :2, :2] = torch.nan
    evidence = replace(head().evidence, magnitude=other, first_echo=other)
    assert dice(method(name)(evidence), found) > 0.97


def test_a_mirrored_head_has_a_mirrored_mask(name, found):
    parts = head().evidence
    flipped = {
        each: getattr(parts, each).flip(0) for each in ("magnitude", "first_echo", "quality")
    }
    built = method(name)
    inner = {each.name for each in fields(built)} & {"brain", "object"}
    built = replace(built, **dict.fromkeys(inner, lambda _: head().brain.flip(0)))
    assert dice(built(replace(parts, **flipped)).flip(0), found) > 0.99


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"whole"}))
def test_where_there_is_nothing_nothing_is_found(name):
    flat = torch.zeros(16, 16, 16)
    evidence = replace(head().evidence, magnitude=flat, first_echo=flat, quality=flat)
    with pytest.raises(InconsistentError, match="mask"):
        compose("mask", name)(evidence)


def test_its_summary_says_when_to_use_it(name):
    summary = type(compose("mask", name)).summary
    assert all((summary.cost, summary.use, summary.reference))

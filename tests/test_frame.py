"""The grid of a k-space network: cut, pad, paste."""

import pytest
import torch

from qsmnet.frame import Frame

SHAPE = (20, 23, 17)


@pytest.fixture
def mask():
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[3:14, 5:18, 2:11] = True
    mask[3:5, 5:7, 2:4] = False
    return mask


@pytest.mark.parametrize("factor", [1.0, 1.25, 2.0])
def test_shape_is_even_fast_and_in_proportion(mask, factor):
    frame = Frame.around(mask, factor)
    assert frame.box == (slice(3, 14), slice(5, 18), slice(2, 11))
    for size, extent in zip(frame.shape, (11, 13, 9), strict=True):
        assert size % 2 == 0
        assert factor * extent - 0.5 <= size <= factor * extent * 1.25 + 2
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1


@pytest.mark.parametrize("batch", [(), (2, 1)])
def test_paste_undoes_cut_inside_the_box(mask, batch):
    volume = torch.randn(*batch, *SHAPE)
    frame = Frame.around(mask, 1.3)
    framed = frame.cut(volume)
    assert framed.shape == (*batch, *frame.shape)
    back = frame.paste(framed, SHAPE)
    box = (..., *frame.box)
    assert torch.equal(back[box], volume[box])
    back[box] = 0
    assert not back.any()


def test_object_lies_in_the_middle_with_zeros_around(mask):
    framed = Frame.around(mask, 1.5).cut(mask)
    assert framed.dtype == torch.bool
    assert framed.sum() == mask.sum()
    for axis, size in enumerate(framed.shape):
        inside = framed.any(dim=tuple(a for a in range(3) if a != axis)).nonzero().ravel()
        before, after = int(inside[0]), size - 1 - int(inside[-1])
        assert abs(before - after) <= 1


def test_the_grid_that_the_object_came_on_does_not_matter(mask):
    volume = torch.randn(SHAPE) * mask
    larger = torch.nn.functional.pad(volume, (4, 9, 0, 3, 7, 1))
    frames = Frame.around(mask, 1.25), Frame.around(larger != 0, 1.25)
    assert torch.equal(frames[0].cut(volume), frames[1].cut(larger))


def test_tiny_objects_get_a_usable_grid():
    mask = torch.zeros(9, 9, 9, dtype=torch.bool)
    mask[4, 4, 4] = True
    assert min(Frame.around(mask, 1.0).shape) >= 8


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="mask is empty"):
        Frame.around(torch.zeros(9, 9, 9, dtype=torch.bool), 1.2)

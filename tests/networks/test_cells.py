"""Cells of voxels as channels and back."""

import torch

from qsmnet.networks.cells import folded, unfolded


def test_a_cube_of_voxels_is_the_channels_of_one():
    volume = torch.arange(2 * 3 * 4 * 6 * 8.0).reshape(2, 3, 4, 6, 8)
    deep = folded(volume, 2)
    assert deep.shape == (2, 24, 2, 3, 4)
    assert torch.equal(deep[1, 8:16, 1, 2, 3], volume[1, 1, 2:, 4:, 6:].flatten())


def test_unfolding_undoes_it():
    volume = torch.randn(2, 3, 6, 9, 3)
    assert torch.equal(unfolded(folded(volume, 3), 3), volume)
    assert folded(volume, 1) is unfolded(volume, 1) is volume

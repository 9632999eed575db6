r"""How far the phase can be trusted, for edges between neighbours and for voxels.

The weights of ROMEO (Dymerska et al. 2021, 10.1002/mrm.28563), each in [0, 1]:

- phase coherence :math:`1 - |\gamma(\phi_i - \phi_j)| / \pi`,
- gradient coherence :math:`\max(0, 1 - |\gamma(\phi_i - \phi_j) - \gamma(\phi'_i - \phi'_j)\,
  TE/TE'|)` with another echo,
- phase linearity :math:`\max(0, 1 - |\gamma(\phi_h - 2\phi_i + \phi_j)| / 2)` times the same on the
  other side; 0.9 where the next voxel on the line is beyond the grid,
- magnitude coherence :math:`(\min(m_i, m_j) / \max(m_i, m_j))^2`,

with :math:`\gamma` wrapping to [-pi, pi]. Their product is that of :math:`0.1 + 0.9 w`, so that one
bad weight does not rule an edge out.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.phase.scale import wrap
from qsmnet.volumes import Scan

# phase linearity where a line of voxels ends, and where a value is not a number
_AT_BORDER, _UNKNOWN = 0.9, 0.5


def quality_map(
    scan: Scan, mask: Bool[Tensor, "x y z"] | None = None, echo: int = 0
) -> Float[Tensor, "x y z"]:
    """Mean weight of the six edges of each voxel, in [0, 1]: near 1 in tissue, 0.3 in noise.

    Needs no mask: masks are made of it.

    Parameters
    ----------
    mask
        Edges that leave it count as zero.
    echo
        Whose phase; the next one (or the one before the last) tells its gradient coherence.
    """
    total = torch.zeros(scan.magnitude.shape[1:])
    for axis in range(3):
        weight = edge_weights(scan, axis, mask, echo)
        low, high = (total.narrow(axis, at, weight.shape[axis]) for at in (0, 1))
        low += weight
        high += weight
    return total / 6


def edge_weights(
    scan: Scan, axis: int, mask: Bool[Tensor, "x y z"] | None = None, echo: int = 0
) -> Float[Tensor, "i j k"]:
    """Weight in [0, 1] of the edges along an axis, one less than voxels; 0 out of the mask."""
    step = wrap(scan.wrapped_phase[echo].diff(dim=axis))
    weight = _scaled(1 - step.abs() / math.pi)
    other = _other_echo(echo, len(scan.echo_times))
    if other != echo:
        expected = wrap(scan.wrapped_phase[other].diff(dim=axis))
        expected *= scan.echo_times[echo] / scan.echo_times[other]
        weight *= _scaled((1 - (step - expected).abs()).clamp_min(0))
    weight *= _scaled(_linearity(step, axis))
    weight *= _scaled(_similarity(scan.magnitude[echo], axis))
    weight = weight.nan_to_num(nan=0.0)
    return weight if mask is None else weight * _inner_edges(mask, axis)


def _other_echo(echo: int, count: int) -> int:
    """Echo whose gradients are compared: the one before, for the first the next."""
    return min(1, count - 1) if echo == 0 else echo - 1


def _scaled(weight: Tensor) -> Tensor:
    return 0.1 + 0.9 * weight


def _linearity(step: Tensor, axis: int) -> Tensor:
    """Phase linearity of each edge, from the steps along a line."""
    length = step.shape[axis]
    linearity = torch.full_like(step, _AT_BORDER)
    if length < 3:
        return linearity
    bend = (1 - wrap(step.diff(dim=axis)).abs() / 2).clamp_min(0).nan_to_num(nan=_UNKNOWN)
    inner = bend.narrow(axis, 0, length - 2) * bend.narrow(axis, 1, length - 2)
    linearity.narrow(axis, 1, length - 2).copy_(inner)
    return linearity


def _similarity(magnitude: Tensor, axis: int) -> Tensor:
    low, high = _ends(magnitude, axis)
    ratio = torch.minimum(low, high) / torch.maximum(low, high).clamp_min(1e-30)
    return ratio.square()


def _inner_edges(mask: Tensor, axis: int) -> Tensor:
    low, high = _ends(mask, axis)
    return low & high


def _ends(volume: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """First and second voxel of each edge along ``axis``."""
    length = volume.shape[axis] - 1
    return volume.narrow(axis, 0, length), volume.narrow(axis, 1, length)

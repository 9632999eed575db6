"""Echoes of one voxel brought onto one line in time."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# turns of 2 pi of a whole echo that uneven echo times can tell apart, the likeliest first
_TURNS = (0, 1, -1, 2, -2)
# voxels that the choice between them looks at
_SAMPLE = 20_000


def align_echoes(
    unwrapped: Float[Tensor, "echo x y z"],
    echo_times: tuple[float, ...],
    mask: Bool[Tensor, "x y z"],
    weight: Float[Tensor, "echo x y z"] | None = None,
    voxelwise: bool = True,
    through_origin: bool = False,
) -> Float[Tensor, "echo x y z"]:
    """Add multiples of 2 pi to the later echoes, so that they lie on a line in time.

    The second echo moves as a whole, so that its median difference to the first lies in [-pi, pi]:
    nothing in the data says which turn is right, and a wrong one only adds a constant to the field.
    (With uneven spacing it can be told, and is.) Each later echo moves to the weighted line through
    the ones before it. Without a phase offset the line goes through the origin; then it is the
    first echo that moves as a whole, and all others follow it.

    Parameters
    ----------
    unwrapped
        In rad. The first two echoes (the first, for a line through the origin) unwrapped in space;
        later ones may be wrapped if ``voxelwise``.
    weight
        One over the variance of the phase, up to a factor; None weights all alike.
    voxelwise
        Move voxels one by one; False moves each echo by its median, for phase that was not
        unwrapped by multiples of 2 pi.
    through_origin
        Whether the phase is zero at TE = 0.
    """
    phase = unwrapped[:, mask]
    weights = torch.ones_like(phase) if weight is None else weight[:, mask]
    times = torch.tensor(echo_times, dtype=phase.dtype).view(-1, 1)
    leader = 0 if through_origin or len(phase) == 1 else 1
    before = phase[0] if leader else torch.zeros_like(phase[0])
    phase[leader] -= turns((phase[leader] - before).median())
    step = max(1, phase.shape[1] // _SAMPLE)
    sample = phase[:, ::step], weights[:, ::step]
    misfits = [
        _follow(*sample, times, leader, turn, voxelwise)[1]
        for turn in _candidates(echo_times, leader)
    ]
    # the turn nearest to zero unless another one fits clearly better
    best = 0 if misfits[0] <= 2 * min(misfits) else misfits.index(min(misfits))
    aligned = torch.zeros_like(unwrapped)
    aligned[:, mask] = _follow(phase, weights, times, leader, _TURNS[best], voxelwise)[0]
    return aligned


def turns(phase: Tensor) -> Tensor:
    """Multiple of 2 pi that is nearest to ``phase``, in rad."""
    return 2 * math.pi * torch.round(phase / (2 * math.pi))


def _candidates(echo_times: tuple[float, ...], leader: int) -> tuple[int, ...]:
    if len(echo_times) < leader + 2:
        return (0,)
    start = echo_times[0] if leader else 0.0
    ratios = [(later - start) / (echo_times[leader] - start) for later in echo_times[leader + 1 :]]
    # whole multiples of the leader's turn: every candidate fits equally well
    even = all(abs(ratio - round(ratio)) < 0.05 for ratio in ratios)
    return (0,) if even else _TURNS


def _follow(
    phase: Tensor, weights: Tensor, times: Tensor, leader: int, turn: int, voxelwise: bool
) -> tuple[Tensor, float]:
    aligned, misfit = phase.clone(), 0.0
    aligned[leader] += 2 * math.pi * turn
    for echo in range(leader + 1, len(aligned)):
        origin = leader == 0
        predicted = _extrapolate(
            aligned[:echo], weights[:echo], times[:echo], float(times[echo]), origin
        )
        ahead = predicted - aligned[echo]
        aligned[echo] += turns(ahead if voxelwise else ahead.median())
        misfit += float((predicted - aligned[echo]).abs().median())
    return aligned, misfit


def _extrapolate(
    phase: Tensor, weights: Tensor, times: Tensor, at: float, origin: bool
) -> Float[Tensor, " voxel"]:
    total = weights.sum(0).clamp_min(1e-30)
    mean = 0.0 if origin else (weights * phase).sum(0) / total
    centre = 0.0 if origin else (weights * times).sum(0) / total
    leaning = weights * (times - centre)
    slope = (leaning * (phase - mean)).sum(0) / (leaning * (times - centre)).sum(0).clamp_min(1e-30)
    predicted: Tensor = mean + slope * (at - centre)
    return predicted

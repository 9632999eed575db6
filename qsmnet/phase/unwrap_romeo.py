"""Unwrapping along the minimum spanning tree of ROMEO's weights."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qsmnet.phase.quality import edge_weights
from qsmnet.phase.spanning_tree import Edges, Integers, unwrap_along_tree
from qsmnet.summary import Summary
from qsmnet.volumes import Scan

_LEVELS = 255
# edges within tissue cost less; only the dearer ones (veins, noise, air) need sorting
_SAFE = 96


@dataclass(frozen=True)
class RomeoUnwrap:
    r"""ROMEO: grow from the most reliable edges (Dymerska et al. 2021, 10.1002/mrm.28563).

    Each edge between neighbours gets a weight from the phase's coherence in space and between
    echoes, its linearity in space, and the coherence of the magnitude (see `qsmnet.phase.quality`),
    in 255 steps. Edges on the minimum spanning tree of :math:`1 - w` are resolved:

    .. math:: u_j = \phi_j - 2\pi\,\mathrm{round}\left(\frac{\phi_j - u_i}{2\pi}\right)

    The result is exact: multiples of 2 pi are all that is added. Differs from ROMEO.jl, which grows
    one region from a seed (Prim) and so takes the same edges but for ties, in the order of ties
    (the edge first in memory), and in that parts of the mask that do not touch each other get
    unrelated multiples.
    """

    exact: ClassVar[bool] = True
    summary: ClassVar[Summary] = Summary(
        cost="no FFT; one spanning tree an echo",
        use="The default: exact, and robust where magnitude and a second echo tell what to trust.",
        reference="Dymerska et al. 2021, 10.1002/mrm.28563",
    )

    def __call__(
        self, scan: Scan, mask: Bool[Tensor, "x y z"], /, count: int | None = None
    ) -> Float[Tensor, "echo x y z"]:
        """Unwrapped phase in rad of the first ``count`` echoes (all), zero outside the mask."""
        unwrapped = torch.zeros_like(scan.wrapped_phase[:count])
        if not bool(mask.any()):
            return unwrapped
        x, y, z = _window(mask)
        phase, magnitude = (a[:, x, y, z] for a in (scan.wrapped_phase, scan.magnitude))
        near = replace(scan, wrapped_phase=phase, magnitude=magnitude, csf=None)
        inside = mask[x, y, z]
        voxels = inside.flatten().nonzero()[:, 0]
        for echo, volume in enumerate(unwrapped[:, x, y, z]):
            edges = edge_costs(near, inside, echo)
            values = unwrap_along_tree(phase[echo].reshape(-1)[voxels].numpy(), edges, _SAFE)
            volume[inside] = torch.from_numpy(values)
        return unwrapped


def edge_costs(scan: Scan, mask: Bool[Tensor, "x y z"], echo: int) -> Edges:
    """Edges between neighbours in the mask, numbered as its voxels, at costs from 1 to 255."""
    number = mask.flatten().cumsum(0, dtype=torch.int32).reshape(mask.shape) - 1
    parts: list[tuple[Integers, Integers, Integers]] = []
    for axis in range(3):
        low, high = (slice(None, -1), slice(1, None))
        first, second = ((slice(None),) * axis + (each,) for each in (low, high))
        chosen = (mask[first] & mask[second]).flatten().nonzero()[:, 0]
        weight = edge_weights(scan, axis, mask, echo)
        near, far = (number[each].reshape(-1)[chosen].numpy() for each in (first, second))
        parts.append((near, far, quantised(weight.reshape(-1)[chosen])))
    first_ends, second_ends, costs = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Edges(first_ends, second_ends, costs)


def quantised(weight: Float[Tensor, "*edge"]) -> Integers:
    """Costs 1 (best) to 255 of weights in [0, 1], as whole numbers."""
    costs: Integers = (_LEVELS * (1 - weight)).round().clamp_min(1).int().numpy()
    return costs


def _window(mask: Tensor) -> tuple[slice, slice, slice]:
    """Smallest box that holds the mask."""
    indices = mask.nonzero()
    low, high = indices.amin(0).tolist(), (indices.amax(0) + 1).tolist()
    x, y, z = (slice(first, last) for first, last in zip(low, high, strict=True))
    return x, y, z

"""Chains of elementwise passes over a grid, a slab of planes along x at a time.

On a CPU a pass over a whole volume is bound by memory: what it wrote has left the cache when the
next one reads it. A chain that runs slab by slab reads and writes memory once, and its intermediate
results need memory of a slab's size alone. On a GPU the one slab is the whole grid.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm

#: Of one array of a slab; a chain has about six of them in the cache at once.
SLAB_BYTES = 2**21


class Slabs:
    """The slabs of a grid, in order.

    Parameters
    ----------
    like
        A volume on the grid.
    scratch
        How many arrays of a slab's size to work in.
    """

    def __init__(self, like: Float[Tensor, "x y z"], scratch: int = 0) -> None:
        self.count = like.shape[0]
        plane = like[0].numel() * like.element_size()
        fit = SLAB_BYTES // plane if like.device.type == "cpu" else self.count
        self.planes = min(self.count, max(1, fit))
        # fresh memory costs more than what is done with it
        shape = (self.planes, *like.shape[1:])
        self._scratch = [like.new_empty(shape) for _ in range(scratch)]

    def __iter__(self) -> Iterator[slice]:
        """Yield the planes of every slab."""
        for start in range(0, self.count, self.planes):
            yield slice(start, min(self.count, start + self.planes))

    def scratch(self, slab: slice) -> Sequence[Float[Tensor, "planes y z"]]:
        """Return the arrays to work in, of the shape of ``slab``; every slab has the same."""
        return [each[: slab.stop - slab.start] for each in self._scratch]


def relative_change(
    chi: Float[Tensor, "x y z"],
    previous: Float[Tensor, "x y z"],
    support: Float[Tensor, "x y z"],
) -> float:
    """Norm of the change of ``chi`` in the support over that of ``chi``; uses up ``previous``."""
    changes, sizes = [], []
    for slab in Slabs(chi):
        work, inside = previous[slab], support[slab]
        changes.append(vector_norm(work.sub_(chi[slab]).mul_(inside)))
        sizes.append(vector_norm(torch.mul(chi[slab], inside, out=work)))
    change, size = vector_norm(torch.stack(changes)), vector_norm(torch.stack(sizes))
    return float(change / size.clamp_min(torch.finfo(size.dtype).tiny))

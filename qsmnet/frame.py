"""The grid of a network that looks at D: the object's bounding box, zero-padded in proportion.

A factor of 1 only takes away the empty grid that a scan came with. For a network on k-space,
k-samples lie 1/FOV apart and an object of size L varies over 1/L, so that one that looks at
neighbouring samples needs FOV/L fixed. The box is cut and padded to ``factor`` times its size,
whatever the grid that the scan came on.
"""

from dataclasses import dataclass
from types import EllipsisType

from jaxtyping import Bool, Shaped
from scipy.fft import next_fast_len
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """A bounding box and the padded shape that it is centred in.

    Parameters
    ----------
    box
        Of the object, in voxels of the original grid.
    shape
        Fast, even FFT sizes.
    """

    box: tuple[slice, slice, slice]
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, mask: Bool[Tensor, "x y z"], factor: float) -> "Frame":
        """Frame of ``factor`` times the bounding box of ``mask``.

        Raises
        ------
        ValueError
            If the mask is empty.
        """
        if not bool(mask.any()):
            raise ValueError("mask is empty")
        box = []
        for axis in range(3):
            others = [a for a in range(3) if a != axis]
            inside = mask.any(others[1]).any(others[0]).nonzero()
            box.append(slice(int(inside[0]), int(inside[-1]) + 1))
        sizes = [_even_fast(round((s.stop - s.start) * factor)) for s in box]
        return cls((box[0], box[1], box[2]), (sizes[0], sizes[1], sizes[2]))

    def cut(self, volume: Shaped[Tensor, "*batch x y z"]) -> Shaped[Tensor, "*batch fx fy fz"]:
        """Put the box into the middle of the padded shape, zeros around."""
        framed = volume.new_zeros((*volume.shape[:-3], *self.shape))
        framed[self._inner()] = volume[(..., *self.box)]
        return framed

    def paste(
        self, framed: Shaped[Tensor, "*batch fx fy fz"], shape: tuple[int, ...]
    ) -> Shaped[Tensor, "*batch x y z"]:
        """Put the box back on a grid of ``shape``, zeros outside: undoes `cut` inside the box."""
        volume = framed.new_zeros((*framed.shape[:-3], *shape))
        volume[(..., *self.box)] = framed[self._inner()]
        return volume

    def _inner(self) -> tuple[EllipsisType, slice, slice, slice]:
        x, y, z = (_middle(n, s.stop - s.start) for n, s in zip(self.shape, self.box, strict=True))
        return ..., x, y, z


def _middle(size: int, part: int) -> slice:
    start = (size - part) // 2
    return slice(start, start + part)


def _even_fast(size: int) -> int:
    return 2 * int(next_fast_len(max(4, -(-size // 2)), real=True))

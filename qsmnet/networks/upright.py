"""The frame in which every scan is alike: cubic voxels, B0 along the third axis."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from qsmnet.geometry import Geometry

# within these a scan is upright as it is: interpolation would cost more than it gains
_LEAST_TILT, _LEAST_SHAPE = math.radians(3.0), 1.05
# of the three-point filter along each axis that makes up for what linear interpolation smooths
# away: of streaks of a head, turned there and back, least is lost with it at 1 mm and 40 degrees
_SHARPENING = 0.06
# voxels around the object
_MARGIN = 2


@dataclass(frozen=True)
class Upright:
    r"""Isotropic grid about an object, its third axis along B0 or against it.

    What the data leave open lies along the cone of D, whose shape in a network's voxels depends on
    B0 and the voxel's proportions: a network that sees maps here meets one cone alone. A point
    :math:`q` here lies at :math:`p = R q`, with the least rotation R that takes the third axis to
    B0, and a voxel's edge is the geometric mean of those of the scan. Across the slices such a grid
    is coarser than one of thick slices, but the cone, whose samples with
    :math:`k_\perp = \sqrt 2 k_\parallel` end where :math:`k_\parallel` does, lies within.

    Parameters
    ----------
    inward, origin
        Scan's voxel at voxel j here: ``inward @ j + origin``.
    shape, native
        Of this grid and of the scan's.
    """

    inward: Float[Tensor, "3 3"]
    origin: Float[Tensor, "3"]
    shape: tuple[int, int, int]
    native: tuple[int, int, int]

    @classmethod
    def about(cls, mask: Bool[Tensor, "x y z"], geometry: Geometry) -> "Upright | None":
        """Grid about what is in a mask; None where the scan is upright already, or nothing is in.

        Parameters
        ----------
        mask
            On the scan's grid.
        geometry
            Of the scan.
        """
        edges = torch.tensor(geometry.voxel_size, dtype=torch.float64)
        rotation = _rotation(geometry.b0_dir)
        tilted = rotation[2, 2] < math.cos(_LEAST_TILT)
        if not (tilted or edges.max() > _LEAST_SHAPE * edges.min()) or not bool(mask.any()):
            return None
        edge = float(edges.prod()) ** (1 / 3)
        middle = (torch.tensor(mask.shape, dtype=torch.float64) - 1) / 2
        # both ends of every column of the mask hold its hull
        points = (_ends(mask).double().cpu() - middle) * edges @ rotation
        low, high = points.amin(0) - _MARGIN * edge, points.amax(0) + _MARGIN * edge
        x, y, z = (math.ceil(float(n) / edge) + 1 for n in high - low)
        half = (torch.tensor([x, y, z], dtype=torch.float64) - 1) / 2
        first = (low + high) / 2 - half * edge
        inward = rotation * edge / edges[:, None]
        nx, ny, nz = mask.shape
        return cls(inward, rotation @ first / edges + middle, (x, y, z), (nx, ny, nz))

    def turned(self, volumes: Float[Tensor, "c x y z"]) -> Float[Tensor, "c p q r"]:
        """Volumes of the scan's grid on this one; zero outside."""
        return _sampled(volumes, self.inward, self.origin, self.shape)

    def turned_back(self, volumes: Float[Tensor, "c p q r"]) -> Float[Tensor, "c x y z"]:
        """Volumes of this grid on the scan's."""
        outward = torch.linalg.inv(self.inward)
        return _sampled(volumes, outward, -outward @ self.origin, self.native)


def _rotation(b0_dir: tuple[float, float, float]) -> Float[Tensor, "3 3"]:
    """Least rotation that takes the third axis to B0, or to its opposite if that is nearer."""
    b = torch.tensor(b0_dir, dtype=torch.float64)
    x, y, z = (b / b.norm() * (1.0 if b[2] >= 0 else -1.0)).tolist()
    # Rodrigues' formula about (-y, x, 0), z >= 0
    s = 1 / (1 + z)
    rows = [[1 - s * x * x, -s * x * y, x], [-s * x * y, 1 - s * y * y, y], [-x, -y, z]]
    return torch.tensor(rows, dtype=torch.float64)


def _ends(mask: Bool[Tensor, "x y z"]) -> Tensor:
    """First and last voxel of the mask in every column along its third axis."""
    columns = mask.any(2)
    last = mask.shape[2] - 1
    lowest = mask.int().argmax(2)
    highest = last - mask.flip(2).int().argmax(2)
    where = columns.nonzero()
    return torch.cat(
        [torch.cat([where, each[columns][:, None]], dim=1) for each in (lowest, highest)]
    )


def _sampled(
    volumes: Float[Tensor, "c x y z"],
    matrix: Float[Tensor, "3 3"],
    shift: Float[Tensor, "3"],
    shape: tuple[int, int, int],
) -> Float[Tensor, "c p q r"]:
    """Linear interpolation at ``matrix @ j + shift`` of voxel j of a new grid, in float32.

    Under autocast places would be of half precision, a third of a voxel off.
    """
    with torch.autocast(volumes.device.type, enabled=False):
        return _interpolated(volumes.float(), matrix, shift, shape)


def _interpolated(
    volumes: Tensor, matrix: Tensor, shift: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    for axis in (-3, -2, -1):
        volumes = _sharpened(volumes, axis)
    # affine_grid's coordinates run from -1 to 1 along each axis, the last one first
    old = (torch.tensor(volumes.shape[-3:], dtype=torch.float64) - 1).clamp_min(1) / 2
    new = (torch.tensor(shape, dtype=torch.float64) - 1).clamp_min(1) / 2
    linear = (matrix * new / old[:, None]).flip(0, 1)
    offset = ((matrix @ new + shift) / old - 1).flip(0)
    theta = torch.cat([linear, offset[:, None]], dim=1)[None].to(volumes)
    grid = F.affine_grid(theta, [1, 1, *shape], align_corners=True)
    found: Tensor = F.grid_sample(volumes[None], grid, align_corners=True)[0]
    return found


def _sharpened(volumes: Tensor, axis: int) -> Tensor:
    """``1 + 2 a`` times each voxel less ``a`` times its two neighbours."""
    n = volumes.shape[axis] - 1
    result = (1 + 2 * _SHARPENING) * volumes
    result.narrow(axis, 1, n).sub_(volumes.narrow(axis, 0, n), alpha=_SHARPENING)
    result.narrow(axis, 0, n).sub_(volumes.narrow(axis, 1, n), alpha=_SHARPENING)
    return result

"""What a susceptibility is relative to: k = 0 is not in the data, so that a zero is a choice."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from qsmnet.errors import InconsistentError
from qsmnet.volumes import Susceptibility

#: Zero of a map: the mean over its mask, over fluid, over a given region, or as it is.
Reference = Literal["mean", "csf", "region", "none"]
#: In words, for reports.
NAMES: dict[Reference, str] = {
    "mean": "mean over the mask",
    "csf": "mean over cerebrospinal fluid",
    "region": "mean over the given region",
    "none": "none",
}
_MARKS: dict[Reference, str] = {
    "mean": "brain_mean",
    "csf": "csf_mean",
    "region": "region_mean",
    "none": "none",
}


@dataclass(frozen=True, slots=True)
class RegionLevel:
    """A region's susceptibility relative to the mean over the whole mask.

    Who refers to a region must say where it lies in whole-brain units, so that maps of different
    references can be compared.

    Parameters
    ----------
    name
        ``csf`` or ``region``.
    voxels
        Of the region within the map's mask.
    mean, sd
        In ppm, relative to the mean over the mask.
    """

    name: str
    voxels: int
    mean: float
    sd: float


def region_level(
    chi: Susceptibility, region: Bool[Tensor, "*batch x y z"], name: str
) -> RegionLevel:
    """Mean and standard deviation of a region in whole-brain-referenced ppm.

    Raises
    ------
    InconsistentError
        If no voxel of the region lies in the map's mask.
    """
    values = chi.chi[region & chi.mask].double()
    if not values.numel():
        raise InconsistentError(
            f"reference ({name})",
            "no voxel of the region lies in the mask of the map",
            "give a region inside the mask, which background removal may have eroded",
        )
    mean = values.mean() - chi.chi[chi.mask].double().mean()
    return RegionLevel(name, values.numel(), float(mean), float(values.std(correction=0)))


def referenced(
    chi: Susceptibility, reference: Reference, region: Bool[Tensor, "*batch x y z"] | None = None
) -> Susceptibility:
    """Subtract what ``reference`` says, volume by volume.

    Parameters
    ----------
    chi
        Of any reference.
    reference
        See `Reference`.
    region
        Where the fluid, or the region, is; needed for these two.

    Raises
    ------
    InconsistentError
        If a region is needed and there is none, or it lies outside of the mask.
    """
    if reference == "none":
        return chi
    if reference == "mean":
        return chi.referenced_to_mean()
    if region is None or not bool((region & chi.mask).flatten(-3).any(-1).all()):
        raise InconsistentError(
            f"reference ({reference})",
            "there is no such region in the mask of the map",
            "give a mask of it on the map's grid, or choose the reference mean",
        )
    counted = (region & chi.mask).to(chi.chi.dtype)
    axes = (-3, -2, -1)
    level = (chi.chi * counted).sum(axes, keepdim=True) / counted.sum(axes, keepdim=True)
    shifted = torch.where(chi.mask, chi.chi - level, 0.0)
    return Susceptibility(shifted, chi.mask, _MARKS[reference], chi.uncertainty, chi.flags)

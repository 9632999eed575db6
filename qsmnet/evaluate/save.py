"""The folder that a comparison leaves behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Integer
from matplotlib.figure import Figure
from torch import Tensor

from qsmnet.evaluate.compare import Result, referenced
from qsmnet.evaluate.figures import comparison_figure, mask_centre, spectrum_figure
from qsmnet.evaluate.regions import QSM_CI_NAMES, region_statistics
from qsmnet.evaluate.table import metrics_csv, metrics_markdown, regions_csv, spectrum_csv
from qsmnet.io.files import atomic_write, write_text
from qsmnet.io.nifti import write_volume
from qsmnet.volumes import LocalField, Susceptibility

#: The record, which `qsmnet.io.together.written_together` adds to what is written here.
RECORD = "comparison.json"


@dataclass(frozen=True)
class Reference:
    """What maps are compared with, and where they lie.

    Parameters
    ----------
    local
        The field that every method was given.
    affine
        4x4, voxel indices to mm.
    truth
        Susceptibility in ppm; None where there is none.
    segmentation
        Labels; None where there are none.
    names
        Name of each label.
    space_code
        NIfTI code of the affine.
    """

    local: LocalField
    affine: npt.NDArray[np.float64]
    truth: Float[Tensor, "x y z"] | None = None
    segmentation: Integer[Tensor, "x y z"] | None = None
    names: Mapping[int, str] | None = None
    space_code: int = 1

    @property
    def referenced_truth(self) -> Float[Tensor, "x y z"] | None:
        """Truth in ppm without its mean over the mask, as it is scored."""
        if self.truth is None:
            return None
        return referenced(Susceptibility(self.truth, self.local.mask), self.local.mask)


def output_names(
    inverters: Sequence[str], with_truth: bool, with_segmentation: bool
) -> tuple[str, ...]:
    """Every file of a comparison, so that they can be checked before any work."""
    names = ["metrics.csv", "metrics.md", "comparison.png", RECORD]
    names += ["spectrum.csv", "spectrum.png"] if with_truth else []
    names += ["regions.csv"] if with_segmentation else []
    return (*names, *(map_name(inverter) for inverter in inverters))


def map_name(inverter: str) -> str:
    """File of one method's map."""
    return f"chi_{inverter}.nii.gz"


def save_comparison(folder: Path, results: Sequence[Result], reference: Reference) -> None:
    """Write tables, pictures and one map a method.

    ``metrics.csv``, ``metrics.md``, ``comparison.png`` always; ``spectrum.csv`` and
    ``spectrum.png`` with truth; ``regions.csv`` with a segmentation; ``chi_NAME.nii.gz`` (ppm,
    relative to the mean over the mask) of every method that did not fail.

    Raises
    ------
    OutputError, ResourceError
        If a file exists or cannot be written.
    """
    for result in results:
        if result.chi is not None:
            path, chi = folder / map_name(result.inverter), result.chi.nan_to_num(0, 0, 0)
            write_volume(path, chi, reference.affine, space_code=reference.space_code)
    write_text(folder / "metrics.csv", metrics_csv(results))
    caption = caption_of(reference.local, reference.truth is not None)
    write_text(folder / "metrics.md", f"{metrics_markdown(results)}\n{caption}\n")
    _save_pictures(folder, results, reference)
    if reference.segmentation is not None:
        write_text(folder / "regions.csv", _regions(results, reference))


def caption_of(local: LocalField, with_truth: bool = True) -> str:
    """One paragraph under the table that says what its numbers are."""
    x, y, z = local.field.shape[-3:]
    size = " x ".join(f"{edge:g}" for edge in local.geometry.voxel_size)
    direction = ", ".join(f"{component:.3g}" for component in local.geometry.b0_dir)
    scores = (
        "Scores as qsm-ci 0.6.2 defines them: NRMSE and HFEN in %, each map and the truth relative"
        " to their mean over the mask. "
    )
    return (
        f"{scores if with_truth else ''}Grid {x} x {y} x {z}, voxels {size} mm, B0 along"
        f" ({direction}), noise {local.noise_level():.2g} ppm, {torch.get_num_threads()} threads on"
        f" {local.field.device.type}; peak memory is the increase of the process's resident memory"
        " in MiB during the call, seen every 5 ms."
    )


def _save_pictures(folder: Path, results: Sequence[Result], reference: Reference) -> None:
    local, truth = reference.local, reference.referenced_truth
    centre = mask_centre(local.mask.cpu().numpy())
    title = f"susceptibility, noise {local.noise_level():.2g} ppm"
    picture = comparison_figure(
        results, None if truth is None else truth.cpu(), local.geometry, centre, title
    )
    save_figure(folder / "comparison.png", picture)
    if truth is not None:
        curves = {r.inverter: r.spectrum for r in results if r.spectrum is not None}
        write_text(folder / "spectrum.csv", spectrum_csv(results))
        figure = spectrum_figure(curves, "where in k-space the maps are wrong")
        save_figure(folder / "spectrum.png", figure)


def save_figure(path: Path, figure: Figure, overwrite: bool = False) -> None:
    """Write a picture atomically.

    Raises
    ------
    OutputError, ResourceError
        If the file exists or cannot be written.
    """
    with atomic_write(path, overwrite) as temporary:
        # no version in the file: equal data give equal pictures
        figure.savefig(temporary, metadata={"Software": None})


def _regions(results: Sequence[Result], reference: Reference) -> str:
    assert reference.segmentation is not None  # noqa: S101 - the caller looked
    labels, mask = reference.segmentation.cpu().numpy(), reference.local.mask.cpu().numpy()
    maps = {r.inverter: r.chi for r in results if r.chi is not None}
    truth = reference.referenced_truth
    if truth is not None:
        maps = {"truth": truth.cpu()} | maps
    names = reference.names or QSM_CI_NAMES
    return regions_csv(
        {name: region_statistics(chi.numpy(), labels, mask, names) for name, chi in maps.items()}
    )

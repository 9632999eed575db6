"""Draw -> record -> render for scans of whole heads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, UInt8
from torch import Tensor

from qsmnet.simulate.grid import Grid
from qsmnet.simulate.head import protocol as sequence
from qsmnet.simulate.head.canvas import HeadCanvas, Look, looks
from qsmnet.simulate.head.convolve import LargeDipole
from qsmnet.simulate.head.kspace import box_average, fine_grid, interpolate, slabs
from qsmnet.simulate.head.label_head import LabelHead
from qsmnet.simulate.head.lesions import Lesion, coarse_grid, paint_lesions, place_lesions
from qsmnet.simulate.head.procedural import ProceduralHead
from qsmnet.simulate.head.scan import HeadScan
from qsmnet.simulate.head.signal import (
    Source,
    acquire,
    add_signal_noise,
    draw_phase_offset,
    field_noise,
    fit_shim,
    noise_deviation,
    phase_offset,
    shim_field,
    unwrapped_phase,
)
from qsmnet.simulate.head.tissues import draw_susceptibility, relaxivity
from qsmnet.simulate.overlays import Texture, Vessels
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import draw_seed, item_generator

# share of brain from which a voxel is one of the brain
_WHOLE = 0.9


@runtime_checkable
class Anatomy(Protocol):
    """Where the tissues of a head are."""

    def draw(self, rng: np.random.Generator, grid: Grid) -> Record:
        """Draw ``placement``, ``softness``, ``radii`` of the brain in mm, and its own."""
        ...

    def paint(self, record: Record, canvas: HeadCanvas) -> None:
        """Paint tissues and the brain's share; no random choice is left."""
        ...


@dataclass(frozen=True)
class Drawn:
    """A head on the fine grid: ``chi`` on the source's, which reaches below the scan's."""

    chi: Float[Tensor, "x y zs"]
    amplitude: Float[Tensor, "x y z"]
    weighted_r2: Float[Tensor, "x y z"]
    brain: Float[Tensor, "x y z"]
    segmentation: UInt8[Tensor, "x y z"]


@dataclass(frozen=True)
class Truth:
    """What a `HeadScan` holds beside its echoes, on the scan's grid."""

    chi: Float[Tensor, "x y z"]
    mask: Bool[Tensor, "x y z"]
    segmentation: UInt8[Tensor, "x y z"]
    total_field: Float[Tensor, "x y z"]
    local_field: Float[Tensor, "x y z"]
    r2star: Float[Tensor, "x y z"]


@dataclass(frozen=True)
class HeadSimulator:
    """Scans of whole heads.

    Parameters
    ----------
    protocol
        Grid, field and sequence.
    labels
        Folder with label maps, or one of them; None draws procedural heads.
    table
        Part or tissue of each label of such maps.
    lesions
        `Lesion` or its parameters, each placed at random in its tissue.
    vessels, texture
        Veins and variation of susceptibility within tissue, in the brain alone.
    factor
        How many times finer than the scan the head is drawn, per axis.
    padding
        Zero padding of the field's convolution. Outside of the head is air, so that periodic images
        are far already.
    neck
        Length in mm of the neck below the grid that counts as a source of field.

    Raises
    ------
    ValueError
        If ``factor`` or ``padding`` is below 1 or the neck negative.
    UsageError, UnreadableError
        If a lesion's parameter, the table or the folder is wrong.
    """

    protocol: sequence.Protocol
    labels: str | None = None
    table: Mapping[int, str] = field(default_factory=dict)
    lesions: Sequence[Lesion | Mapping[str, Any]] = ()
    vessels: Vessels = field(default_factory=lambda: Vessels(count=(30, 60), sinus=1.0))
    texture: Texture = field(default_factory=Texture)
    factor: int = 2
    padding: float = 1.5
    neck: float = 60.0

    def __post_init__(self) -> None:
        if self.factor < 1 or self.padding < 1 or self.neck < 0:
            raise ValueError("factor and padding are at least 1, neck at least 0")
        wanted = [each if isinstance(each, Lesion) else Lesion(**each) for each in self.lesions]
        object.__setattr__(self, "lesions", tuple(wanted))
        # a folder or a table that is wrong is told now, not after the first field
        _ = self.anatomy

    @property
    def anatomy(self) -> Anatomy:
        """What draws the tissues."""
        return ProceduralHead() if self.labels is None else LabelHead(self.labels, self.table)

    @property
    def wanted_lesions(self) -> list[Lesion]:
        """The lesions as such."""
        return [each for each in self.lesions if isinstance(each, Lesion)]

    def draw(self, seed: int, split: str, index: int) -> Record:
        """Draw the record of item ``index`` of ``split``, as plain JSON."""
        rng = item_generator(seed, split, index)
        grid = self.protocol.grid
        anatomy = self.anatomy.draw(rng, grid)
        chi = draw_susceptibility(rng)
        # label maps have their sinuses
        vessels = self.vessels if self.labels is None else replace(self.vessels, sinus=0.0)
        record = {
            "seed": seed,
            "split": split,
            "index": index,
            "source": "procedural head" if self.labels is None else anatomy["file"],
            "anatomy": anatomy,
            "chi": chi,
            "vessels": vessels.draw(rng, anatomy["radii"]),
            "texture": self.texture.draw(rng),
            "phase_offset": draw_phase_offset(rng),
            "noise_seed": draw_seed(rng),
        }
        return {**record, "lesions": self._draw_lesions(rng, record)}

    def scene(self, seed: int, index: int, split: str = "test") -> HeadScan:
        """Draw and render one item."""
        return self.render(self.draw(seed, split, index))

    def render(self, record: Record) -> HeadScan:
        """Render the scan of a record."""
        protocol = self.protocol
        clean, truth = self._acquire(record)
        deviation = noise_deviation(clean, truth.mask, protocol.snr)
        noisy = add_signal_noise(clean, deviation, record["noise_seed"])
        offset = phase_offset(record["phase_offset"], protocol.grid)
        return HeadScan(
            phase=noisy.angle(),
            magnitude=noisy.abs(),
            **vars(truth),
            phase_offset=offset,
            unwrapped_phase=unwrapped_phase(clean, offset, truth.total_field, protocol),
            noise=field_noise(clean.abs(), deviation, protocol),
            signal_noise=deviation,
            protocol=protocol,
            record=record,
        )

    def _acquire(self, record: Record) -> tuple[Complex[Tensor, "echo x y z"], Truth]:
        """Echoes without noise, and what they were made of; the fine grid is gone afterwards."""
        fine, factor = fine_grid(self.protocol.grid, self.factor), self.factor
        drawn = self.paint(record)
        # bone at the rim would be a strong source where a scan has hardly any signal
        mask = box_average(drawn.brain, factor) > _WHOLE
        total, local, sources = self._fields(drawn, mask, record["chi"]["air"])
        chi = self._in_view(drawn.chi)
        shim = fit_shim(box_average(total, factor), mask, self.protocol.grid)
        for rows, piece in slabs(fine):
            total[rows] -= shim_field(shim, piece)
        r2star = drawn.weighted_r2 / drawn.amplitude.clamp_min(1e-9)
        r2star += relaxivity(self.protocol.b0) * chi.abs() * drawn.brain
        source = Source(drawn.amplitude, r2star, total)
        clean = acquire(source, fine, self.protocol, record["phase_offset"], factor)
        weight = box_average(drawn.amplitude, factor).clamp_min(1e-9)
        truth = Truth(
            chi=torch.where(mask, sources, box_average(chi, factor)),
            mask=mask,
            segmentation=drawn.segmentation[::factor, ::factor, ::factor].contiguous(),
            total_field=box_average(total, factor),
            local_field=local,
            r2star=box_average(r2star * drawn.amplitude, factor) / weight,
        )
        return clean, truth

    def paint(self, record: Record) -> Drawn:
        """Draw the head on the fine grid, slab by slab: whole, its coordinates would not fit."""
        palette = looks(record["chi"], self.protocol)
        source = fine_grid(self.protocol.grid, self.factor, self._below)
        view = fine_grid(self.protocol.grid, self.factor).shape
        low = source.shape[2] - view[2]
        drawn = Drawn(
            chi=torch.empty(source.shape),
            amplitude=torch.empty(view),
            weighted_r2=torch.empty(view),
            brain=torch.empty(view),
            segmentation=torch.empty(view, dtype=torch.uint8),
        )
        for rows, piece in slabs(source):
            canvas = self._canvas(record, piece, palette)
            drawn.chi[rows] = canvas.chi
            drawn.amplitude[rows] = canvas.amplitude[..., low:]
            drawn.weighted_r2[rows] = canvas.weighted_r2[..., low:]
            drawn.brain[rows] = canvas.brain[..., low:]
            drawn.segmentation[rows] = canvas.segmentation[..., low:]
        return drawn

    def _canvas(self, record: Record, grid: Grid, palette: Mapping[str, Look]) -> HeadCanvas:
        canvas = HeadCanvas(record["anatomy"], grid, palette)
        self.anatomy.paint(record["anatomy"], canvas)
        canvas.limit = canvas.brain
        texture = torch.zeros_like(canvas.chi)
        self.texture.render(record["texture"], canvas.points(), texture)
        canvas.chi += texture * canvas.brain
        self.vessels.render(record["vessels"], canvas)
        paint_lesions(canvas, record.get("lesions", ()))
        return canvas

    def _draw_lesions(self, rng: np.random.Generator, record: Record) -> list[Record]:
        if not self.lesions:
            return []
        palette = looks(record["chi"], self.protocol)
        canvas = self._canvas(record, coarse_grid(self.protocol.grid), palette)
        return place_lesions(rng, self.wanted_lesions, canvas)

    def _fields(self, drawn: Drawn, mask: Tensor, air: float) -> tuple[Tensor, Tensor, Tensor]:
        """Total field on the scan's fine grid; local field on its own, and what makes it, in ppm.

        One kernel for both fields. What makes the local field is the brain's part of every voxel of
        the mask: a tenth of bone, or of air, would be the strongest source of the surface, and no
        local field has it.
        """
        geometry = replace(self.protocol.geometry, voxel_size=self._fine_voxel)
        dipole = LargeDipole(drawn.chi.shape, geometry, self.padding)
        first = self._below * self.factor
        # relative to air the source ends where the head does
        total = dipole.forward(drawn.chi - air, first)
        inside = torch.zeros_like(drawn.chi)
        self._in_view(inside).copy_(interpolate(mask.float(), self.factor))
        self._in_view(inside).mul_(drawn.brain > _WHOLE)
        inside.mul_(drawn.chi)
        sources = box_average(self._in_view(inside), self.factor)
        local = dipole.forward(inside, first)
        return total, box_average(local, self.factor), sources

    @property
    def _below(self) -> int:
        return round(self.neck / self.protocol.voxel_size[2])

    @property
    def _fine_voxel(self) -> tuple[float, float, float]:
        return fine_grid(self.protocol.grid, self.factor).voxel_size

    def _in_view(self, volume: Tensor) -> Tensor:
        return volume[..., self._below * self.factor :]

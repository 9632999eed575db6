"""What an inversion is given of a subject: its field as it is, or changed in a known way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from qsmnet.errors import UsageError
from qsmnet.evaluate.case_changes import (
    background_of,
    changed,
    corrupted,
    eroded,
    scaled,
    told_wrongly,
    turned,
    with_ball,
)
from qsmnet.evaluate.subjects import Subject
from qsmnet.evaluate.tools import Tools
from qsmnet.volumes import LocalField, Susceptibility

Restore = Callable[[Susceptibility], Susceptibility]


@dataclass(frozen=True)
class Input:
    """How a subject's field reaches the inversion; with nothing set, as the scan tells it.

    Parameters
    ----------
    background
        Removal, by name, that makes the local field of a head's noisy total field.
    preset
        Preset whose stages make it of a head's wrapped phase; the mask is theirs, too.
    source
        Susceptibility in ppm of a ball that is put into the subject first.
    radius
        Of the ball, in mm.
    sd
        Standard deviation of the noise in ppm, everywhere, in place of the scan's.
    unmasked
        Whether the field is known on the whole box.
    erosion
        In mm, taken off the mask.
    corruption
        ``_target_`` and settings of an error as those that networks are trained with; what is
        random about it is drawn for each subject.
    residual
        Rms over the local field's of a background that was left in, harmonic in the mask.
    b0_error
        Degrees by which the B0 direction that is told is wrong.
    stretch
        Factors of the voxel size that is told.
    turn
        Two axes; the volume is turned by a quarter from the first to the second.
    factor
        Of field and noise; the phase of 1 ppm is divided by it.

    Raises
    ------
    ValueError
        If the field is made in two ways.
    """

    background: str = ""
    preset: str = ""
    source: float | None = None
    radius: float = 4.0
    sd: float | None = None
    unmasked: bool = False
    erosion: float = 0.0
    corruption: Mapping[str, Any] = field(default_factory=dict)
    residual: float = 0.0
    b0_error: float = 0.0
    stretch: Sequence[float] = (1.0, 1.0, 1.0)
    turn: Sequence[int] = ()
    factor: float = 1.0

    def __post_init__(self) -> None:
        if sum(map(bool, (self.background, self.preset, self.corruption))) > 1:
            raise ValueError("an input has one of background, preset and corruption")

    def prepare(self, subject: Subject, tools: Tools) -> "Case":
        """Make the case: truth, what is given, and the way back.

        Raises
        ------
        UsageError
            If a phantom is to be given a total field or a scan.
        """
        subject = subject if self.source is None else with_ball(subject, self.source, self.radius)
        subject = subject if self.sd is None else subject.with_noise(self.sd)
        subject = subject.known_everywhere() if self.unmasked else subject
        subject, local = self._measured(subject, tools)
        if self.residual:
            local = replace(local, field=local.field + self.residual * background_of(subject))
        if self.erosion:
            local = eroded(local, self.erosion)
        return Case(subject, *self._told(local))

    def there(self, tools: Tools) -> bool:
        """Whether the methods that it names are."""
        named = {"background": self.background, "preset": self.preset}
        there = all(name in tools.available(group) for group, name in named.items() if name)
        return there and (not self.corruption or tools.make(self.corruption) is not None)

    def _measured(self, subject: Subject, tools: Tools) -> tuple[Subject, LocalField]:
        if self.corruption:
            return subject, corrupted(subject, tools.make(self.corruption))
        if not (self.background or self.preset):
            return subject, subject.local_field()
        if subject.head is None:
            name = self.background or self.preset
            raise UsageError(name, "needs a head", "give phantoms their local field")
        scene = subject.head
        if self.background:
            removal = tools.build("background", self.background, ())
            whole: LocalField = removal(scene.total_field())
        else:
            whole = tools.front(self.preset)(scene.head.as_scan())
        # a mask that was found may reach beyond the true one
        box = scene.box_around(scene.head.mask | whole.mask)
        return Subject.of_head(scene, box), changed(whole, lambda volume: volume[box])

    def _told(self, local: LocalField) -> tuple[LocalField, Restore]:
        """Apply what the truth does not share, and say how a map is brought back."""
        local, factor = scaled(local, self.factor), self.factor
        geometry = told_wrongly(local.geometry, self.b0_error, self.stretch)
        local = replace(local, geometry=geometry)
        axes = tuple(self.turn)
        if axes:
            local = turned(local, axes)

        def restore(found: Susceptibility) -> Susceptibility:
            chi, mask = found.chi / factor, found.mask
            if axes:
                chi, mask = (torch.rot90(volume, -1, axes) for volume in (chi, mask))
            return Susceptibility(chi, mask)

        return local, restore


@dataclass(frozen=True)
class Case:
    """What an inversion is given, and what it is judged by.

    Parameters
    ----------
    subject
        The truth.
    given
        The field.
    restore
        From the map of ``given`` to one on the subject's grid.
    """

    subject: Subject
    given: LocalField
    restore: Restore

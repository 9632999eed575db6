"""Changes of a field that are known, and of the subject that it comes from."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qsmnet.background.depth import depth_in_mask
from qsmnet.dipole import Dipole
from qsmnet.evaluate.subjects import Subject
from qsmnet.geometry import Geometry
from qsmnet.simulate import tissue
from qsmnet.simulate.grid import Grid
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import item_generator, white_noise
from qsmnet.simulate.scene import Scene
from qsmnet.volumes import LocalField

Change = Callable[[Tensor], Tensor]


def changed(local: LocalField, change: Change) -> LocalField:
    """Return a field with all of its volumes changed alike: cropped, turned, moved."""
    values = {each.name: getattr(local, each.name) for each in fields(local)}
    volumes: dict[str, Any] = {n: change(v) for n, v in values.items() if isinstance(v, Tensor)}
    return replace(local, **volumes)


def turned(local: LocalField, axes: tuple[int, ...]) -> LocalField:
    """Turn by a quarter from the first axis to the second, the geometry with it."""
    first, second = axes
    size, b0 = list(local.geometry.voxel_size), list(local.geometry.b0_dir)
    size[first], size[second] = size[second], size[first]
    b0[first], b0[second] = -b0[second], b0[first]
    geometry = Geometry((size[0], size[1], size[2]), (b0[0], b0[1], b0[2]))
    field = changed(local, lambda volume: torch.rot90(volume, 1, axes))
    return replace(field, geometry=geometry)


def scaled(local: LocalField, factor: float) -> LocalField:
    """Multiply field and noise; phases stay as they are."""
    noise, phase = local.noise, local.radians_per_ppm
    return replace(
        local,
        field=local.field * factor,
        noise=None if noise is None else noise * factor,
        radians_per_ppm=None if phase is None else phase / factor,
    )


def eroded(local: LocalField, depth: float) -> LocalField:
    """Take ``depth`` mm off the mask; the field is known in the rest."""
    mask = depth_in_mask(local.mask, local.geometry) > depth
    noise = local.noise * mask if isinstance(local.noise, Tensor) else local.noise
    return replace(local, field=local.field * mask, mask=mask, noise=noise, field_support=None)


def told_wrongly(geometry: Geometry, degrees: float, stretch: Sequence[float]) -> Geometry:
    """B0 tilted from where it is, and other voxel edges."""
    b0, angle = torch.tensor(geometry.b0_dir, dtype=torch.float64), math.radians(degrees)
    # towards the axis that B0 is farthest from
    aside = torch.zeros(3, dtype=torch.float64)
    aside[int(b0.abs().argmin())] = 1.0
    aside -= (aside @ b0) * b0
    bx, by, bz = (math.cos(angle) * b0 + math.sin(angle) * aside / aside.norm()).tolist()
    dx, dy, dz = (edge * s for edge, s in zip(geometry.voxel_size, stretch, strict=True))
    return Geometry((dx, dy, dz), (bx, by, bz))


def with_ball(subject: Subject, chi: float, radius: float) -> Subject:
    """Put a ball of one susceptibility into the deepest white matter, and its field with it.

    The labels call it a bleed where ``chi`` is positive, else a calcification, and no other lesion
    keeps its own. Without white matter it lies in the middle of the mask.
    """
    inside = subject.mask & (subject.segmentation == tissue.WHITE_MATTER)
    depth = depth_in_mask(inside if bool(inside.any()) else subject.mask, subject.geometry)
    x, y, z = subject.chi.shape
    grid = Grid((x, y, z), subject.geometry.voxel_size)
    points = grid.points()
    centre = points.flatten(1)[:, int(depth.argmax())].reshape(3, 1, 1, 1)
    share = grid.coverage((points - centre).square().sum(0).sqrt() - radius) * subject.mask
    change = share * (chi - subject.chi)
    dipole = Dipole((x, y, z), subject.geometry, subject.kernel or "prism", padding=2.0)
    label = tissue.HAEMORRHAGE if chi > 0 else tissue.CALCIFICATION
    labels = subject.segmentation
    lesions = (labels == tissue.HAEMORRHAGE) | (labels == tissue.CALCIFICATION)
    kinds = torch.where(share > 0.5, label, labels * ~lesions).to(torch.uint8)
    return replace(
        subject,
        chi=subject.chi + change,
        exact=subject.exact + dipole.forward(change),
        segmentation=kinds,
    )


@runtime_checkable
class Corruption(Protocol):
    """An error of measured fields: what is drawn of it, and a scene that has it."""

    def draw(self, rng: np.random.Generator) -> Record | None:
        """Everything random; None for no error."""
        ...

    def apply(self, record: Record, scene: Scene, forward: Change) -> Scene:
        """Scene with the error; ``forward`` is the dipole of its geometry."""
        ...


def corrupted(subject: Subject, corruption: Corruption) -> LocalField:
    """Return the subject's field with an error of its own."""
    record = corruption.draw(item_generator(subject.seed, "corruption", 0))
    scene = subject.as_scene()
    if record is not None:
        x, y, z = subject.chi.shape
        dipole = Dipole((x, y, z), subject.geometry, scene.kernel, padding=2.0)
        scene = corruption.apply(record, scene, dipole.forward)
    given = subject.local_field()
    noise = scene.noise * scene.field_support
    return replace(
        given,
        field=scene.local_field,
        mask=scene.mask,
        field_support=scene.field_support,
        noise=noise if bool((noise > 0).any()) else None,
    )


def background_of(subject: Subject) -> Float[Tensor, "x y z"]:
    """Field of random sources beyond the mask, with the rms of the subject's own in it, in ppm.

    A step away from the mask, in it harmonic, and without its mean, which no method sees.
    """
    x, y, z = subject.chi.shape
    room = ~subject.mask
    for axis in range(3):
        # sources that touch would be too fine for a voxel's kernel
        room = room & room.roll(1, axis) & room.roll(-1, axis)
    sources = white_noise(0, (x, y, z)) * room
    field = Dipole((x, y, z), subject.geometry, "prism", padding=2.0).forward(sources)
    inside = field[subject.mask]
    true = subject.exact[subject.mask]
    return (field - inside.mean()) * (true.std() / inside.std()) * subject.known

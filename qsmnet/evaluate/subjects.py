"""What a dipole inversion is judged on: an object whose susceptibility is known, and its field."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from qsmnet.background.depth import depth_in_mask
from qsmnet.dipole import Kernel
from qsmnet.evaluate import heads
from qsmnet.geometry import Geometry
from qsmnet.simulate import scene as phantoms
from qsmnet.simulate.randomness import white_noise
from qsmnet.volumes import Box, LocalField


@dataclass(frozen=True)
class Subject:
    """Susceptibility and its field, on the box that an inversion sees.

    Parameters
    ----------
    chi
        Truth in ppm.
    mask
        Where it is sought.
    segmentation
        Labels of `qsmnet.simulate.tissue`.
    exact
        Field in ppm of chi in ``mask``, without noise, on the whole box.
    noise
        Standard deviation in ppm of the scan's own noise.
    told
        The same as a user knows it; None where it is exact.
    pattern
        White noise of unit variance; the same whatever its strength.
    geometry
        Voxel size and B0 direction.
    known
        Where a scan tells the field; the mask, but for phantoms that are known everywhere.
    magnitude, radians_per_ppm
        As of `LocalField`.
    kernel
        Of the dipole that made the field, where the voxels are cuboids of one susceptibility each;
        None for scans.
    head
        The whole scan; None for phantoms.
    seed
        Of what is drawn for this subject alone.
    erosion
        In mm, what the inner part of the mask lacks.
    """

    chi: Float[Tensor, "x y z"]
    mask: Bool[Tensor, "x y z"]
    segmentation: UInt8[Tensor, "x y z"]
    exact: Float[Tensor, "x y z"]
    noise: Float[Tensor, "x y z"]
    pattern: Float[Tensor, "x y z"]
    geometry: Geometry
    known: Bool[Tensor, "x y z"]
    told: Float[Tensor, "x y z"] | None = None
    magnitude: Float[Tensor, "x y z"] | None = None
    radians_per_ppm: float | None = None
    kernel: Kernel | None = None
    head: heads.Scene | None = None
    seed: int = 0
    erosion: float = 6.0

    @classmethod
    def of_head(cls, scene: heads.Scene, box: Box | None = None) -> "Subject":
        """Take a head's part in ``box``, by default the brain's."""
        head, part = scene.head, scene.box if box is None else box
        return cls(
            chi=head.chi[part],
            mask=head.mask[part],
            segmentation=head.segmentation[part],
            exact=head.local_field[part],
            noise=head.noise[part],
            told=scene.told_noise[part],
            pattern=scene.noise_pattern[part],
            geometry=head.geometry,
            known=head.mask[part],
            magnitude=scene.magnitude()[part],
            radians_per_ppm=scene.radians_per_ppm(),
            head=scene,
            seed=head.record["noise_seed"],
            erosion=scene.erosion,
        )

    @classmethod
    def of_phantom(cls, scene: phantoms.Scene, erosion: float = 6.0) -> "Subject":
        """Take all of a phantom."""
        seed = scene.record["acquisition"]["noise"]["seed"]
        return cls(
            chi=scene.chi,
            mask=scene.mask,
            segmentation=scene.segmentation,
            exact=scene.local_field_exact,
            noise=scene.noise,
            pattern=white_noise(seed, tuple(scene.chi.shape), scene.chi.device),
            geometry=scene.geometry,
            known=scene.field_support,
            kernel=scene.kernel,
            seed=seed,
            erosion=erosion,
        )

    @cached_property
    def inner(self) -> Bool[Tensor, "x y z"]:
        """The mask without its rim."""
        return depth_in_mask(self.mask, self.geometry) > self.erosion

    def with_noise(self, deviation: float) -> "Subject":
        """Return the same with noise of one standard deviation in ppm everywhere."""
        return replace(self, noise=torch.full_like(self.noise, deviation), told=None)

    def known_everywhere(self) -> "Subject":
        """Return the same with a field that is data on the whole box."""
        return replace(self, known=torch.ones_like(self.known))

    def as_scene(self) -> phantoms.Scene:
        """Return the same as a phantom's scene, which errors of the field are made for."""
        return phantoms.Scene(
            chi=self.chi * self.mask,
            mask=self.mask,
            segmentation=self.segmentation,
            local_field=self.local_field().field,
            local_field_exact=self.exact,
            noise=self.noise if self.told is None else self.told,
            field_support=self.known,
            geometry=self.geometry,
            record={},
            kernel=self.kernel or "prism",
        )

    def local_field(self) -> LocalField:
        """Return what an inversion is given: never the truth."""
        # zero noise is said as phantoms say it
        told = self.noise if self.told is None else self.told
        noise = told * self.known if bool((self.noise > 0).any()) else None
        return LocalField(
            (self.exact + self.noise * self.pattern) * self.known,
            self.mask,
            self.geometry,
            field_support=None if torch.equal(self.known, self.mask) else self.known,
            noise=noise,
            magnitude=self.magnitude,
            radians_per_ppm=self.radians_per_ppm,
        )

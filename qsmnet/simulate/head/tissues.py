"""Susceptibility, proton density and relaxation of every tissue of a head.

T1, T2 and proton density are rounded from published relaxometry (Wansapura et al. 1999; Stanisz et
al. 2005, 10.1002/mrm.20605; Rooney et al. 2007, 10.1002/mrm.21122; QSM challenge phantom 2.0,
Marques et al. 2021, 10.1002/mrm.28716); susceptibilities are those of `qsmnet.simulate.tissue` and,
outside the brain, of Hopkins & Wehrli 1997 (bone) and of air in water.
"""

from dataclasses import dataclass

import numpy as np

from qsmnet.simulate import tissue
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import uniform

Pair = tuple[float, float]


@dataclass(frozen=True)
class HeadTissue:
    """What a tissue does to field and signal.

    Parameters
    ----------
    label
        Number in `qsmnet.simulate.tissue`.
    chi
        Lowest and highest mean susceptibility in ppm relative to water.
    density
        Proton density, that of water is 1.
    t1, t2
        Relaxation times in s at 3 T and at 7 T.
    """

    label: int
    chi: Pair
    density: float
    t1: Pair
    t2: Pair

    def r1(self, b0: float) -> float:
        """Longitudinal relaxation rate in 1/s, linear in ``b0`` (T) through 3 and 7 T."""
        return _at(self.t1, b0)

    def r2(self, b0: float) -> float:
        """Transverse relaxation rate in 1/s, linear in ``b0`` (T) through 3 and 7 T."""
        return _at(self.t2, b0)


def _at(times: Pair, b0: float) -> float:
    low, high = (1 / t for t in times)
    # far from both fields a line may turn negative
    return max(low + (high - low) * (b0 - 3.0) / 4.0, 0.2 * min(low, high))


def relaxivity(b0: float) -> float:
    """R2' in 1/s that a susceptibility of 1 ppm adds at ``b0`` (T): 137 at 3 T, growing with B0.

    Measured in vivo (Shin et al. 2021, 10.1016/j.neuroimage.2021.118371); static dephasing by
    randomly placed spheres would make 321 (Yablonskiy & Haacke 1994, 10.1002/mrm.1910320610).
    """
    return 137.0 * b0 / 3.0


def _brain(label: int, density: float, t1: Pair, t2: Pair) -> HeadTissue:
    return HeadTissue(label, tissue.RANGES[label], density, t1, t2)


_WATER = ((4.0, 4.0), (1.5, 1.0))

#: By name; the names of labels that have a name in `qsmnet.simulate.tissue` are those.
TISSUES: dict[str, HeadTissue] = {
    "caudate": _brain(tissue.CAUDATE, 0.82, (1.30, 1.70), (0.088, 0.060)),
    "globus pallidus": _brain(tissue.PALLIDUM, 0.72, (1.00, 1.30), (0.064, 0.041)),
    "putamen": _brain(tissue.PUTAMEN, 0.80, (1.20, 1.60), (0.078, 0.055)),
    "red nucleus": _brain(tissue.RED_NUCLEUS, 0.74, (1.00, 1.30), (0.068, 0.045)),
    "dentate nucleus": _brain(tissue.DENTATE, 0.78, (1.10, 1.40), (0.080, 0.055)),
    "substantia nigra": _brain(tissue.NIGRA, 0.74, (1.05, 1.35), (0.073, 0.045)),
    "thalamus": _brain(tissue.THALAMUS, 0.78, (1.10, 1.50), (0.087, 0.060)),
    "white matter": _brain(tissue.WHITE_MATTER, 0.70, (0.85, 1.20), (0.070, 0.0455)),
    "brain stem": HeadTissue(tissue.WHITE_MATTER, (-0.03, 0.01), 0.74, (0.95, 1.30), (0.075, 0.05)),
    "grey matter": _brain(tissue.GREY_MATTER, 0.82, (1.35, 1.90), (0.095, 0.065)),
    "cerebrospinal fluid": _brain(tissue.CSF, 1.0, *_WATER),
    "venous blood": _brain(tissue.BLOOD, 0.85, (1.65, 2.10), (0.060, 0.025)),
    "artery": HeadTissue(tissue.ARTERY, (-0.02, 0.03), 0.85, (1.65, 2.10), (0.150, 0.070)),
    "fat": HeadTissue(tissue.FAT, (0.3, 0.8), 0.9, (0.38, 0.50), (0.070, 0.050)),
    "bone": HeadTissue(tissue.BONE, (-2.6, -1.9), 0.1, (0.40, 0.40), (0.001, 0.0008)),
    "marrow": HeadTissue(tissue.MARROW, (-0.6, 0.2), 0.6, (0.55, 0.65), (0.045, 0.030)),
    "air": HeadTissue(tissue.AIR, (9.2, 9.5), 0.0, (1.0, 1.0), (1.0, 1.0)),
    "muscle": HeadTissue(tissue.MUSCLE, (-0.1, 0.1), 0.75, (1.30, 1.80), (0.040, 0.028)),
    "skin": HeadTissue(tissue.SKIN, (-0.1, 0.1), 0.6, (0.90, 1.10), (0.030, 0.022)),
    "eye": HeadTissue(tissue.EYE, (-0.05, 0.05), 1.0, (3.5, 3.8), (0.5, 0.3)),
    "mucosa": HeadTissue(tissue.MUCOSA, (-0.1, 0.1), 0.85, (1.4, 1.8), (0.080, 0.050)),
    # T2 of lesions: the susceptibility adds to R2* by itself
    "haemorrhage": HeadTissue(tissue.HAEMORRHAGE, (0.3, 2.0), 0.75, (1.2, 1.5), (0.050, 0.035)),
    "calcification": HeadTissue(
        tissue.CALCIFICATION, (-3.5, -0.2), 0.3, (0.9, 1.1), (0.030, 0.020)
    ),
}
#: Parts of a label map that differ from a tissue by their place alone.
PARTS: dict[str, str] = {
    "lateral ventricle": "cerebrospinal fluid",
    "third ventricle": "cerebrospinal fluid",
    "fourth ventricle": "cerebrospinal fluid",
    "extracerebral fluid": "cerebrospinal fluid",
    "cerebellar white matter": "white matter",
    "cerebellar cortex": "grey matter",
    "ventral diencephalon": "brain stem",
    "hippocampus": "grey matter",
    "amygdala": "grey matter",
    "accumbens": "grey matter",
    "nerve": "white matter",
    "spinal cord": "white matter",
    "soft tissue": "muscle",
}


def tissue_of(part: str) -> str:
    """Tissue of a part of the head; a tissue is its own."""
    return PARTS.get(part, part)


def draw_susceptibility(rng: np.random.Generator) -> Record:
    """Draw the mean susceptibility of every tissue in ppm, uniformly over its range."""
    return {name: uniform(rng, each.chi) for name, each in TISSUES.items()}

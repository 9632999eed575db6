"""Susceptibility of the parts of a brain: published ranges, iron by age, or anything at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qsmnet.simulate.head.labels import BETWEEN_PARTS, BRAIN_PARTS
from qsmnet.simulate.head.tissues import TISSUES, tissue_of
from qsmnet.simulate.phantom import Record
from qsmnet.simulate.randomness import log_uniform, uniform

#: Parts of a brain that have a susceptibility of their own; whatever else is fluid.
PARTS = sorted(BRAIN_PARTS | BETWEEN_PARTS)
FLUID = "cerebrospinal fluid"

#: By nucleus, the rate in 1/year at which iron accumulates: that of caudate, putamen and globus
#: pallidus is of Hallgren & Sourander 1958 (10.1111/j.1471-4159.1958.tb12607.x), whose iron is
#: a - b exp(-rate age); red nucleus, substantia nigra and dentate nucleus rise over the same
#: decades (Li et al. 2021, 10.3389/fnins.2020.607705), without a rate of their own there.
IRON_RATES = {
    "caudate": 0.05,
    "putamen": 0.04,
    "globus pallidus": 0.09,
    "red nucleus": 0.06,
    "substantia nigra": 0.06,
    "dentate nucleus": 0.05,
}
# individual spread, as a share of a tissue's range, at full iron
_SPREAD = 0.25
# parts of one tissue differ by this share of its range
_BETWEEN_PARTS_SPREAD = 0.15


@dataclass(frozen=True)
class Contrast:
    """Mean susceptibility in ppm of every part of a brain.

    Parameters
    ----------
    random
        Share of brains whose parts have means from a normal distribution of any width, so that no
        network can learn tissue by heart.
    width
        Narrowest and widest standard deviation in ppm of these, log-uniform.
    age
        Range in years; iron of the deep nuclei follows it.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    random: float = 0.25
    width: Sequence[float] = (0.02, 0.3)
    age: Sequence[float] = (5.0, 90.0)

    def __post_init__(self) -> None:
        if not 0 <= self.random <= 1:
            raise ValueError(f"random must be a share from 0 to 1, got {self.random}")
        if not 0 < self.width[0] <= self.width[1] <= 10:
            raise ValueError(f"width must be two numbers in (0, 10] ppm, got {list(self.width)}")
        if not 0 <= self.age[0] <= self.age[1] <= 150:
            raise ValueError(f"age must be two numbers from 0 to 150 years, got {list(self.age)}")

    def draw(self, rng: np.random.Generator) -> Record:
        """Draw ``age`` (None where contrast is random) and ``chi`` by part, in ppm."""
        if rng.random() < self.random:
            width = log_uniform(rng, *self.width)
            return {"age": None, "chi": {part: float(rng.normal(0, width)) for part in PARTS}}
        age = uniform(rng, self.age)
        level = {name: float(rng.random()) for name in sorted({tissue_of(p) for p in PARTS})}
        chi = {part: _within_range(rng, part, level[tissue_of(part)], age) for part in PARTS}
        return {"age": age, "chi": chi}


def _within_range(rng: np.random.Generator, part: str, level: float, age: float) -> float:
    """Mean of a part: where its tissue lies in its range, and what is the part's own."""
    tissue = tissue_of(part)
    low, high = TISSUES[tissue].chi
    own = float(rng.normal(0, _BETWEEN_PARTS_SPREAD / 2))
    if tissue in IRON_RATES:
        iron = 1 - math.exp(-IRON_RATES[tissue] * age)
        # inter-individual spread grows with iron (Treit et al. 2021, 10.1002/hbm.25569)
        level = iron * (1 + 2 * _SPREAD * (level - 0.5)) - _SPREAD / 2
    return min(high, low + (high - low) * min(1.0, max(0.0, level + own)))

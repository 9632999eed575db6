"""What the automatic strength of a regularisation is worth: its error over the best of a grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from qsmnet.evaluate.metrics import score
from qsmnet.inversion.automatic import Automatic
from qsmnet.inversion.inverter import Inverter
from qsmnet.volumes import LocalField, Susceptibility


@dataclass(frozen=True)
class AgainstGrid:
    """NRMSE in % of one field's maps.

    Parameters
    ----------
    parameter
        What was chosen.
    value
        The automatic choice.
    automatic
        NRMSE with it.
    solves
        Inversions that it took.
    grid
        NRMSE of each value of the grid.
    default
        NRMSE of the inverter as it was given.
    """

    parameter: str
    value: float
    automatic: float
    solves: int
    grid: Mapping[float, float]
    default: float

    @property
    def best(self) -> float:
        """Value of the grid with the least error."""
        return min(self.grid, key=self.grid.__getitem__)

    @property
    def ratio(self) -> float:
        """Error of the automatic choice over that of the best of the grid."""
        return self.automatic / self.grid[self.best]

    def row(self) -> dict[str, str]:
        """For a table: columns by name."""
        return {
            "chosen": f"{self.value:.3g}",
            "best": f"{self.best:.3g}",
            "nrmse": f"{self.automatic:.2f}",
            "best_nrmse": f"{self.grid[self.best]:.2f}",
            "ratio": f"{self.ratio:.3f}",
            "solves": str(self.solves),
            "default_nrmse": f"{self.default:.2f}",
        }


def against_grid(
    inverter: Inverter, local: LocalField, truth: Float[Tensor, "x y z"], values: Sequence[float]
) -> AgainstGrid:
    """Invert one field with the automatic strength, with every value, and as the inverter is.

    Every map is scored about its mean in the mask. Works for any inverter with a strength; a
    ``noise_gain`` is 0 but for the inverter as it is.

    Raises
    ------
    UsageError
        If the inverter has no strength.
    """
    rule = Automatic(inverter)
    found = rule(local)
    choice = found.chosen[0]
    errors = {value: _nrmse(rule.with_strength(value)(local), truth) for value in values}
    return AgainstGrid(
        choice.parameter,
        choice.value,
        _nrmse(found, truth),
        len(choice.curve),
        errors,
        _nrmse(inverter(local), truth),
    )


def _nrmse(found: Susceptibility, truth: Tensor) -> float:
    true = replace(found, chi=truth).referenced_to_mean().chi
    made = found.referenced_to_mean().chi
    return score(made.cpu().numpy(), true.cpu().numpy(), found.mask.cpu().numpy())["nrmse"]

"""Low harmonic polynomials: fields of shim coils and of whatever else is far away."""

import torch
from jaxtyping import Float
from torch import Tensor

_POWERS = 3
#: Coefficients of x^a y^b z^c, by degree: 1; x, y, z; xy, xz, yz, x^2 - y^2, 2 z^2 - x^2 - y^2.
_HARMONICS: tuple[dict[tuple[int, int, int], float], ...] = (
    {(0, 0, 0): 1.0},
    {(1, 0, 0): 1.0},
    {(0, 1, 0): 1.0},
    {(0, 0, 1): 1.0},
    {(1, 1, 0): 1.0},
    {(1, 0, 1): 1.0},
    {(0, 1, 1): 1.0},
    {(2, 0, 0): 1.0, (0, 2, 0): -1.0},
    {(0, 0, 2): 2.0, (2, 0, 0): -1.0, (0, 2, 0): -1.0},
)
_COUNTS = {0: 1, 1: 4, 2: 9}


class Shim:
    """Weighted least squares fit of harmonic polynomials, in two passes over memory.

    Parameters
    ----------
    weight
        Of the squared residual; where it is zero nothing is fitted.
    voxel_size
        In mm.
    order
        Highest degree: 0, 1 or 2, which are 1, 4 or 9 polynomials.
    """

    def __init__(
        self, weight: Float[Tensor, "x y z"], voxel_size: tuple[float, float, float], order: int
    ) -> None:
        self.weight = weight
        self.powers = _powers_of_coordinates(weight, voxel_size)
        self.mix = torch.zeros(_COUNTS[order], _POWERS, _POWERS, _POWERS, device=weight.device)
        for row, polynomial in zip(self.mix, _HARMONICS, strict=False):
            for power, value in polynomial.items():
                row[power] = value
        columns = [self._moments(weight * self._polynomial(row)) for row in self.mix]
        self.inverse = torch.linalg.pinv(torch.stack(columns).double()).float()

    def fit(self, volume: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """Polynomial that is nearest to ``volume`` by weight, everywhere."""
        coefficients = self.inverse @ self._moments(volume * self.weight)
        return self._polynomial(torch.einsum("n,nabc->abc", coefficients, self.mix))

    def weighted_rest(self, volume: Float[Tensor, "x y z"]) -> Float[Tensor, "x y z"]:
        """Weight times what of ``volume`` no polynomial explains: symmetric in the volume."""
        weighted = volume * self.weight
        coefficients = self.inverse @ self._moments(weighted)
        fit = self._polynomial(torch.einsum("n,nabc->abc", coefficients, self.mix))
        return weighted.sub_(fit.mul_(self.weight))

    def _moments(self, weighted: Tensor) -> Tensor:
        x, y, z = self.powers
        slim = torch.einsum("xyc,by->xbc", weighted @ z.T, y)
        return torch.einsum("xbc,ax,nabc->n", slim, x, self.mix)

    def _polynomial(self, coefficients: Tensor) -> Tensor:
        x, y, z = self.powers
        slim = torch.einsum("abc,ax,by->xyc", coefficients, x, y)
        return slim @ z


def _powers_of_coordinates(
    weight: Tensor, voxel_size: tuple[float, float, float]
) -> list[Float[Tensor, "powers n"]]:
    """0th to 2nd power of the coordinates about the weight's centre, of order 1 where it is."""
    axes, spreads = [], []
    for axis, edge in enumerate(voxel_size):
        profile = weight.sum([other for other in range(3) if other != axis]).double()
        positions = torch.arange(len(profile), device=weight.device).double() * edge
        centred = positions - (profile * positions).sum() / profile.sum()
        axes.append(centred)
        spreads.append(float((profile * centred**2).sum() / profile.sum()))
    reach = 2 * max(*spreads, 1e-12) ** 0.5
    return [torch.stack([(axis / reach) ** n for n in range(_POWERS)]).float() for axis in axes]

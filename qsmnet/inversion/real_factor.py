"""A real factor of half spectra, as it is used again and again."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor


class RealFactor:
    """Every value twice, side by side, as a complex array lies in memory.

    As it is, a real factor would be cast to a complex array at each use, in fresh memory, at twice
    the time of the product or more. For one use `qsmnet.background.crop.times_real` does without
    either, in two passes.
    """

    def __init__(self, factor: Float[Tensor, "kx ky kz"]) -> None:
        self.pairs = torch.stack((factor, factor), dim=-1)

    def scale(self, spectrum: Complex[Tensor, "kx ky kz"]) -> Complex[Tensor, "kx ky kz"]:
        """Multiply ``spectrum`` in place."""
        torch.view_as_real(spectrum).mul_(self.pairs)
        return spectrum

    def add_scaled(
        self,
        total: Complex[Tensor, "kx ky kz"],
        spectrum: Complex[Tensor, "kx ky kz"],
        weight: float,
    ) -> None:
        """Add ``weight`` times the product to ``total``, in place."""
        torch.view_as_real(total).addcmul_(torch.view_as_real(spectrum), self.pairs, value=weight)

"""A real factor of half spectra is that factor."""

import torch

from qsmnet.inversion.real_factor import RealFactor


def test_is_the_product() -> None:
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn((3, 4, 5), generator=generator)
    one, two = torch.randn((2, 3, 4, 5), dtype=torch.complex64, generator=generator).unbind()
    total = one + 0.3 * two * factor
    RealFactor(factor).add_scaled(made := one.clone(), two, 0.3)
    torch.testing.assert_close(made, total)
    torch.testing.assert_close(RealFactor(factor).scale(one.clone()), one * factor)

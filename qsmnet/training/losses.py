"""Training losses: each a function of prediction and batch, weighed in one config."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qsmnet.dipole import Dipole, sampled_kernel
from qsmnet.geometry import Geometry
from qsmnet.networks.contract import robust_scale
from qsmnet.training.batch import Batch

_AXES = (-3, -2, -1)
_CUBE = 8  # voxels of an edge
_LEAST_FINE = 1e-6  # of the truth's mean absolute value


@dataclass(frozen=True)
class Loss:
    """Weighted sum of terms, relative to the size of the truth.

    Errors are divided by the truth's mean absolute value in the mask, so that a pale brain counts
    as much as one with a haemorrhage; the mean over the mask is removed, since k = 0 is not in the
    data.

    Parameters
    ----------
    l1, l2
        Weights of mean absolute and of root mean square error.
    gradient
        Of the mean absolute error of finite differences.
    fine
        Of the mean absolute error without its local mean, over that of the truth. What is smooth of
        a crop may lie beside a surface and be beyond its U-Net, but would rule the sign of the
        error, and with it the descent.
    data_consistency
        Of the mean absolute field of the error, ``|D (prediction - truth)|``.
    kspace
        Of the mean absolute error of the spectrum, each sample divided by the square root of the
        truth's local amplitude so that neither the centre nor the rim dominates.
    free_mean
        Whether the mean over the mask is removed; of a part of an object it means something.

    Raises
    ------
    ValueError
        If a weight is no number from 0, or all are 0.
    """

    l1: float = 1.0
    l2: float = 0.0
    gradient: float = 0.3
    data_consistency: float = 0.0
    kspace: float = 0.0
    fine: float = 0.0
    free_mean: bool = True

    def __post_init__(self) -> None:
        weights = {name: value for name, value in vars(self).items() if name != "free_mean"}
        usable = all(isinstance(w, (int, float)) and 0 <= w < math.inf for w in weights.values())
        if not usable or not any(weights.values()):
            raise ValueError(f"weights must be numbers from 0, not all 0, got {weights}")

    def predict(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the network's susceptibility, zero outside the mask."""
        chi: Tensor = network(*batch.inputs(network))
        return chi * batch.mask

    def __call__(
        self, prediction: Float[Tensor, "batch 1 x y z"], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the sum, and each term by name, unweighted."""
        chi, mask, geometry = batch.chi, batch.mask, batch.geometry
        centred = demeaned if self.free_mean else _masked
        truth = centred(chi, mask)
        scale = robust_scale(truth, mask)
        error = (centred(prediction.float(), mask) - truth) / scale
        terms = {}
        if self.l1:
            terms["l1"] = masked_mean(error.abs(), mask)
        if self.l2:
            mean_square = masked_mean(error.square(), mask, per_item=True)
            # a root has no gradient at 0, which an item without a mask would reach
            terms["l2"] = mean_square.clamp_min(1e-12).sqrt().mean()
        if self.gradient:
            terms["gradient"] = gradient_error(error, mask)
        if self.fine:
            parts = (fine_part(each, mask).abs() for each in (error, truth / scale))
            wrong, size = (masked_mean(each, mask, per_item=True) for each in parts)
            terms["fine"] = (wrong / size.clamp_min(_LEAST_FINE)).mean()
        if self.data_consistency:
            terms["data_consistency"] = field_error(error, mask, geometry)
        if self.kspace:
            terms["kspace"] = spectrum_error(error, truth / scale)
        total = sum(
            (getattr(self, name) * value for name, value in terms.items()), error.new_zeros(())
        )
        return total, terms


def demeaned(
    volume: Float[Tensor, "batch 1 x y z"], mask: Float[Tensor, "batch 1 x y z"]
) -> Float[Tensor, "batch 1 x y z"]:
    """Zero mean in the mask, zero outside."""
    mean = (volume * mask).sum(_AXES, keepdim=True) / mask.sum(_AXES, keepdim=True).clamp_min(1.0)
    return (volume - mean) * mask


def _masked(volume: Tensor, mask: Tensor) -> Tensor:
    return volume * mask


def masked_mean(values: Tensor, mask: Tensor, per_item: bool = False) -> Tensor:
    """Mean over the mask of each item, then over the items."""
    means = (values * mask).sum(_AXES) / mask.sum(_AXES).clamp_min(1.0)
    return means if per_item else means.mean()


def gradient_error(error: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute finite difference of the error between voxels that are both inside."""
    total = error.new_zeros(())
    for axis in _AXES:
        n = error.shape[axis] - 1
        inside = mask.narrow(axis, 1, n) * mask.narrow(axis, 0, n)
        total = total + masked_mean(error.diff(dim=axis).abs(), inside)
    return total / 3


def fine_part(volume: Tensor, mask: Tensor) -> Tensor:
    """Return what the interpolated mean over cubes of 8 voxels leaves; zero off the mask."""
    sums, counts = (
        nn.functional.interpolate(
            nn.functional.avg_pool3d(each, _CUBE, ceil_mode=True),
            size=volume.shape[-3:],
            mode="trilinear",
        )
        for each in (volume * mask, mask)
    )
    return (volume - sums / counts.clamp_min(1e-3)) * mask


def field_error(error: Tensor, mask: Tensor, geometry: Sequence[Geometry]) -> Tensor:
    """Mean absolute field that the error would make, in the mask."""
    shape = (error.shape[-3], error.shape[-2], error.shape[-1])
    return masked_mean(Dipole(shape, geometry, device=error.device).forward(error).abs(), mask)


def spectrum_error(error: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of the spectrum over the root of the truth's smoothed amplitude."""
    with torch.autocast(error.device.type, enabled=False):
        wrong = torch.fft.rfftn(error.float(), dim=_AXES, norm="ortho").abs()
        amplitude = torch.fft.rfftn(truth.float(), dim=_AXES, norm="ortho").abs()
        # nine samples on average tell the local amplitude without dividing by a chance zero
        smooth = torch.nn.functional.avg_pool3d(
            amplitude, 3, stride=1, padding=1, count_include_pad=False
        )
        mean: Tensor = (wrong / smooth.clamp_min(1e-3).sqrt()).mean()
        return mean


@dataclass(frozen=True)
class HeLoss:
    """The published loss of k-QSM (He et al. 2022), on the network's raw spectrum.

    ``MSE(X, X_true)`` over all samples plus ``L1(X, X_tkd)`` over the samples with
    ``|D| > threshold``, both of unnormalised centred spectra; real and imaginary parts count as two
    numbers. D(0) is 1/3, so that k = 0 is among them: three times the field's sum.

    Parameters
    ----------
    threshold
        Of the truncation.

    Raises
    ------
    ValueError
        If the threshold is not between 0 and 2/3, the largest of D.
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, (int, float)) or not 0 < self.threshold < 2 / 3:
            raise ValueError(f"threshold must be between 0 and 2/3, got {self.threshold}")

    def predict(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the network's spectrum, before any image is made of it."""
        spectrum: Tensor = network.spectrum(_quiet_field(batch), batch.geometry)  # type: ignore[operator]
        return spectrum

    def __call__(self, prediction: Tensor, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the sum, and its two terms."""
        shape = (batch.chi.shape[-3], batch.chi.shape[-2], batch.chi.shape[-1])
        kernels = [sampled_kernel(shape, each).to(batch.chi) for each in batch.geometry]
        stacked = torch.stack(kernels)
        # what the authors' formula gives there, where a field says nothing of its source
        stacked[..., 0, 0, 0] = 1.0 / 3.0
        kernel = torch.fft.fftshift(stacked, dim=_AXES)
        truth = _centred_spectrum(batch.chi * batch.mask)
        known = kernel.abs() > self.threshold
        division = _centred_spectrum(_quiet_field(batch))[known] / kernel[known]
        fit = torch.view_as_real(prediction - truth).square().mean()
        keep = torch.view_as_real(prediction[known] - division).abs().mean()
        return fit + keep, {"spectrum": fit.detach(), "tkd": keep.detach()}


def _quiet_field(batch: Batch) -> Tensor:
    quiet = batch.without_voids()
    return quiet.field * quiet.support


def _centred_spectrum(volume: Tensor) -> Tensor:
    spectrum = torch.fft.fftn(volume[:, 0].float(), dim=_AXES)
    shifted: Tensor = torch.fft.fftshift(spectrum, dim=_AXES)
    return shifted

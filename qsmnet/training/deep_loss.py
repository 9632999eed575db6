"""Losses of networks that iterate: every estimate is judged, and the last steps by another loss."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qsmnet.training.batch import Batch
from qsmnet.training.losses import Loss


@dataclass(frozen=True)
class Deep:
    r"""A loss of the result, and of every estimate on the way to it (deep supervision).

    .. math:: L(\chi_n) + w \sum_{k=1}^{n-1} \gamma^{\,n-1-k} L(\chi_k)

    Lee et al. 2015 (arXiv:1409.5185). An early iteration so learns by itself, and the late ones
    count most. A network without an ``estimates`` method has its result alone.

    With ``log_offset`` o the loss is :math:`\log(o + L)`, so that a step counts by the percentage
    by which its error falls: fields that are noisy or wrong have ten times the error of good ones,
    and with batches of one item would rule the descent.

    Parameters
    ----------
    loss
        L.
    weight
        w of the estimate before the result.
    decay
        gamma: what the one before counts of that.
    log_offset
        o, below which an error is small enough; None for the plain sum.

    Raises
    ------
    ValueError
        If weight or decay is not from 0 to 1, or the offset not above 0.
    """

    loss: Loss
    weight: float = 0.3
    decay: float = 0.5
    log_offset: float | None = None

    def __post_init__(self) -> None:
        for name in ("weight", "decay"):
            _check_share(name, getattr(self, name))
        if self.log_offset is not None and not 0 < float(self.log_offset) < math.inf:
            raise ValueError(f"log_offset must be a number above 0, got {self.log_offset}")

    def predict(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return all estimates along a first axis, the result last, zero outside the mask."""
        if not hasattr(network, "estimates"):
            return self.loss.predict(network, batch)[None]
        found = network.estimates(*batch.inputs(network))  # type: ignore[operator]
        return torch.stack(found) * batch.mask

    def __call__(
        self, prediction: Float[Tensor, "estimate batch 1 x y z"], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the sum, the result's terms, and the unweighted loss of the first estimate."""
        total, terms = self.loss(prediction[-1], batch)
        earlier = [self.loss(estimate, batch)[0] for estimate in prediction[:-1]]
        for distance, each in enumerate(reversed(earlier)):
            total = total + self.weight * self.decay**distance * each
        if self.log_offset is not None:
            total = torch.log(self.log_offset + total)
        return total, {**terms, **({"first": earlier[0]} if earlier else {})}


@dataclass(frozen=True)
class Switched:
    """One loss for the first part of a run, another for the rest; counted in steps, never time.

    Absolute errors are the more robust teacher, the root of the mean square is what NRMSE measures
    and what a calibrated estimate under noise minimises.

    Parameters
    ----------
    first, second
        The losses.
    share
        Of the run's steps that belong to the first.

    Raises
    ------
    ValueError
        If the share is not from 0 to 1.
    """

    first: Loss | Deep
    second: Loss | Deep
    share: float = 0.8

    def __post_init__(self) -> None:
        _check_share("share", self.share)

    def at(self, step: int, steps: int) -> Loss | Deep:
        """Return the loss of a step, counted from 0, of a run of so many ``steps``."""
        return self.first if step < self.share * steps else self.second


def _check_share(name: str, value: object) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= float(value) <= 1:  # type: ignore[arg-type]
        raise ValueError(f"{name} must be a number from 0 to 1, got {value}")

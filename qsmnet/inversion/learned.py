"""A trained network as an inverter."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from qsmnet.dipole import Kernel
from qsmnet.frame import Frame
from qsmnet.geometry import Geometry
from qsmnet.inversion.inverter import Input
from qsmnet.inversion.outer_sources import without_outer_sources
from qsmnet.inversion.trained_range import training_range_flags, typical_noise
from qsmnet.volumes import LocalField, Susceptibility, quiet_support
from qsmnet.weights.store import Card, load_weights

_NO_MAGNITUDE = "no magnitude: the network was trained with one, and does without"


@dataclass(frozen=True)
class LearnedInverter:
    """Susceptibility by a network whose weights are verified when they are loaded.

    The network sees the field where it is known, the noise's standard deviation (0 when unknown),
    the mask and the geometry, and the magnitude if it was trained with one, none being no error;
    nothing that a user would not have. Whole volumes, float32. Signal voids, voxels whose noise is
    over five times its median in the mask, are unknown to a network that does not weigh each voxel
    by its own noise. After a background removal that took the brain's own harmonic field, the field
    is restored first (`without_outer_sources`). Axes are permuted so that B0 lies nearest the
    third, as in training, whatever the order in which a file stores them.

    Parameters
    ----------
    weights
        A released name, or a ``.safetensors`` file with its card beside it.
    kernel
        Of the dipole, for networks that invert by it: ``sampled`` for scans; ``prism`` where the
        data are known to be made of partial-volume cuboids. Others do without.
    device
        ``cpu`` or a torch device.

    Raises
    ------
    qsmnet.errors.WeightsError
        At the first call, if the weights are damaged or do not fit.
    """

    weights: str
    kernel: Kernel = "sampled"
    device: str = "cpu"

    takes: ClassVar[Input] = "local_field"

    def __call__(self, local: LocalField, /) -> Susceptibility:
        """Invert each item of the batch by itself, so that memory does not grow with the batch."""
        network, card = load_network(self.weights, self.device, self.kernel)
        local = without_outer_sources(local, self.kernel)
        shape = local.field.shape
        order = axes_with_b0_last(local.geometry)
        geometry = permuted(local.geometry, order)
        wanted = getattr(network, "magnitude", False)
        shown = (local.magnitude,) if wanted and local.magnitude is not None else ()
        volumes = (
            v.reshape(-1, *shape[-3:])
            .to(self.device, torch.float32)
            .permute(0, *(a + 1 for a in order))
            for v in (local.field, local.support, _noise(local), local.mask, *shown)
        )
        items: list[Tensor] = []
        remarks: list[str] = []
        for item in zip(*volumes, strict=True):
            items.append(_invert(network, geometry, *item))
            remarks += getattr(network, "remarks", ())
        back = [order.index(axis) for axis in range(3)]
        maps = torch.stack([item.permute(back) for item in items])
        chi = maps.reshape(shape).to(local.field) * local.mask
        takes_noise = getattr(network, "takes_noise", True)
        flags = training_range_flags(card, geometry, typical_noise(local), takes_noise)
        missing = (_NO_MAGNITUDE,) if wanted and not shown else ()
        flags += (*missing, *dict.fromkeys(remarks))
        return Susceptibility(chi, local.mask, flags=flags)


def axes_with_b0_last(geometry: Geometry) -> tuple[int, int, int]:
    """Cyclic order of the axes in which that nearest to B0 comes third."""
    third = max(range(3), key=lambda axis: abs(geometry.b0_dir[axis]))
    return (third + 1) % 3, (third + 2) % 3, third


def permuted(geometry: Geometry, order: tuple[int, int, int]) -> Geometry:
    """Geometry of a volume whose axes were permuted to ``order``."""
    x, y, z = order
    size, b0 = geometry.voxel_size, geometry.b0_dir
    return Geometry((size[x], size[y], size[z]), (b0[x], b0[y], b0[z]))


@lru_cache(maxsize=4)
def load_network(weights: str, device: str, kernel: Kernel) -> tuple[nn.Module, Card]:
    """Load a verified network to a device, with its card; the last four stay in memory."""
    network, card = load_weights(weights)
    if hasattr(network, "kernel"):
        network.kernel = kernel  # type: ignore[assignment]  # a setting, no weight
    # channels last: 3-D convolutions of a whole volume take two thirds of the time
    network = network.to(device)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return network, card


@torch.no_grad()
def _invert(
    network: nn.Module,
    geometry: Geometry,
    field: Tensor,
    support: Tensor,
    noise: Tensor,
    mask: Tensor,
    *magnitude: Tensor,
) -> Tensor:
    weighs = getattr(network, "weighs_noise", False)
    known = support if weighs else quiet_support(support, noise, mask)
    inputs = (field * (known > 0), known, noise * (known > 0), mask, *magnitude)
    factor = getattr(network, "field_of_view", None)
    if factor is None:
        return _applied(network, geometry, *inputs)
    # where the field is known outside the mask it is data too
    frame = Frame.around((mask > 0) | (support > 0), factor)
    chi = _applied(network, geometry, *(frame.cut(volume) for volume in inputs))
    return frame.paste(chi, tuple(field.shape))


def _applied(network: nn.Module, geometry: Geometry, *volumes: Tensor) -> Tensor:
    field, support, noise, mask, *magnitude = (volume[None, None] for volume in volumes)
    chi: Tensor = network(field, support, noise, mask, [geometry], *magnitude)[0, 0]
    return chi


def _noise(local: LocalField) -> Tensor:
    if isinstance(local.noise, Tensor):
        return local.noise
    return torch.full_like(local.field, float(local.noise or 0.0))

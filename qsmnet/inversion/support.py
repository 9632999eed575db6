"""Where chi may be other than zero: in the mask, or anywhere."""

from typing import Literal

from qsmnet.volumes import LocalField

Support = Literal["auto", "mask", "free"]


def is_free(support: Support, local: LocalField) -> bool:
    """Whether chi may lie outside of the mask: to take up fields that are not of the mask."""
    return support == "free" or (support == "auto" and local.harmonic_removed)


def check_support(support: Support) -> None:
    """Raise `ValueError` unless it is ``auto``, ``mask`` or ``free``."""
    if support not in ("auto", "mask", "free"):
        raise ValueError(f"support is 'auto', 'mask' or 'free', got {support!r}")

"""From wrapped echoes to a map of known sources, and entry at every stage."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from qsmnet.background.vsharp import VSharp
from qsmnet.dipole import Dipole
from qsmnet.errors import InconsistentError, NumericalError, UsageError
from qsmnet.geometry import Geometry
from qsmnet.inversion.inverter import Input
from qsmnet.inversion.tkd import TKD
from qsmnet.mask.magnitude import MagnitudeMask
from qsmnet.mask.mask import Evidence, MaskPair
from qsmnet.mask.quality import QualityMask
from qsmnet.phase.offset_none import KeepOffset
from qsmnet.phase.quality import quality_map
from qsmnet.phase.unwrap_best_path import BestPathUnwrap
from qsmnet.phase.unwrap_laplacian import LaplacianUnwrap
from qsmnet.pipeline import Pipeline, scan_evidence
from qsmnet.units import radians_per_ppm
from qsmnet.volumes import LocalField, Scan, Susceptibility, TotalField

B0 = 3.0
ECHO_TIMES = (0.004, 0.012, 0.021)
GEOMETRY = Geometry((1.0, 1.0, 1.2), (0.1, -0.2, 0.97))
SHAPE = (48, 46, 40)
PIPELINE = Pipeline(BestPathUnwrap(), MagnitudeMask(), VSharp((6.0, 5.0, 4.0, 3.0, 2.0)), TKD())


def _grid() -> tuple[torch.Tensor, ...]:
    axes = [(torch.arange(n) - n / 2) * d for n, d in zip(SHAPE, GEOMETRY.voxel_size, strict=True)]
    return torch.meshgrid(*axes, indexing="ij")


def _ball(centre: tuple[float, float, float], radius: float) -> torch.Tensor:
    return sum((a - c) ** 2 for a, c in zip(_grid(), centre, strict=True)).sqrt() < radius


OBJECT = _ball((0, 0, 0), 18)
CHI = (
    0.15 * _ball((5, 2, 0), 4)
    - 0.1 * _ball((-6, 3, 2), 3)
    + 0.2 * _ball((0, -8, -3), 2.5)
)  # fmt: skip
INTERIOR = _ball((0, 0, 0), 13)


def _total_field() -> torch.Tensor:
    outside = 9.0 * _ball((0, 22, 4), 2) - 9.0 * (_grid()[2] > 21)
    return Dipole(SHAPE, GEOMETRY, padding=1.5).forward(CHI + outside)


def _scan(noise: float = 1.0) -> Scan:
    x, y, _ = _grid()
    offset = 0.06 * x + 0.002 * y**2 + 0.7
    phase = torch.stack([offset + radians_per_ppm(t, B0) * _total_field() for t in ECHO_TIMES])
    decay = torch.tensor([math.exp(-t / 0.04) for t in ECHO_TIMES]).view(-1, 1, 1, 1)
    parts = torch.randn(2, *phase.shape, generator=torch.Generator().manual_seed(3)) * noise
    signal = torch.polar(100 * decay * OBJECT, phase) + torch.complex(parts[0], parts[1])
    return Scan(signal.angle(), signal.abs(), ECHO_TIMES, B0, GEOMETRY)


def _correlation(a: torch.Tensor, b: torch.Tensor, where: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a[where], b[where]]))[0, 1])


@pytest.fixture(scope="module")
def scan() -> Scan:
    return _scan()


def test_raw_phase_becomes_a_map_of_the_sources(scan: Scan) -> None:
    assert float(scan.wrapped_phase.abs().max()) > 3, "nothing wraps: the test is empty"
    result = PIPELINE.reconstruct(scan)
    chi = result.susceptibility.chi
    where = INTERIOR & result.susceptibility.mask
    assert float(where.sum() / INTERIOR.sum()) > 0.98
    assert _correlation(chi, CHI, where) > 0.85
    # the sign, source by source
    for centre, sign in (((5, 2, 0), 1), ((-6, 3, 2), -1), ((0, -8, -3), 1)):
        assert sign * float(chi[_ball(centre, 2.0)].mean()) > 0.04
    assert result.susceptibility.reference == "brain_mean"
    assert float(chi[result.susceptibility.mask].mean()) == pytest.approx(0, abs=1e-6)


def test_noise_of_the_field_is_that_of_the_echoes(scan: Scan) -> None:
    result, clean = PIPELINE.reconstruct(scan, OBJECT), PIPELINE.reconstruct(_scan(0.0), OBJECT)
    local, exact = result.local_field, clean.local_field
    assert local is not None
    assert exact is not None
    assert isinstance(local.noise, torch.Tensor)
    ratio = (local.field - exact.field)[INTERIOR] / local.noise[INTERIOR]
    assert float(ratio.std()) == pytest.approx(1, abs=0.15)
    assert "residuals" in result.noise_source


def test_a_flipped_phase_flips_the_map(scan: Scan) -> None:
    flipped = PIPELINE.reconstruct(replace(scan, wrapped_phase=-scan.wrapped_phase), OBJECT)
    chi = PIPELINE.reconstruct(scan, OBJECT).susceptibility.chi
    assert torch.allclose(flipped.susceptibility.chi, -chi, atol=2e-3)


def test_entry_at_every_stage_gives_the_same_map(scan: Scan) -> None:
    whole = PIPELINE.reconstruct(scan, OBJECT)
    assert whole.total_field is not None
    assert whole.local_field is not None
    for entry in (whole.total_field, whole.local_field):
        again = PIPELINE.reconstruct(entry)
        assert torch.allclose(again.susceptibility.chi, whole.susceptibility.chi, atol=1e-6)
        assert again.noise_source == "given"


def test_noise_that_is_not_given_is_estimated() -> None:
    clean = Dipole(SHAPE, GEOMETRY).forward(CHI)
    noisy = clean + 0.004 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))
    result = PIPELINE.reconstruct(LocalField(noisy, OBJECT, GEOMETRY))
    assert result.local_field is not None
    assert result.local_field.noise == pytest.approx(0.004, rel=0.15)
    assert result.noise_source.startswith("estimated")


def test_what_lies_outside_the_support_does_not_matter() -> None:
    field = Dipole(SHAPE, GEOMETRY).forward(CHI)
    poisoned = torch.where(INTERIOR, field, math.nan)
    support = INTERIOR.float()
    one = PIPELINE.reconstruct(LocalField(poisoned, OBJECT, GEOMETRY, support, 0.001))
    two = PIPELINE.reconstruct(LocalField(field, OBJECT, GEOMETRY, support, 0.001))
    assert torch.equal(one.susceptibility.chi, two.susceptibility.chi)


def test_the_mean_is_kept_on_request(scan: Scan) -> None:
    result = replace(PIPELINE, reference="none").reconstruct(scan, OBJECT)
    chi = result.susceptibility
    assert chi.reference == "none"
    assert float(chi.chi[chi.mask].mean()) == pytest.approx(result.mean_before_reference)


def test_inexact_unwrapping_and_single_echoes_are_flagged(scan: Scan) -> None:
    laplacian = replace(PIPELINE, unwrap=LaplacianUnwrap()).reconstruct(scan, OBJECT)
    assert any("not exact" in flag for flag in laplacian.flags)
    single = Scan(scan.wrapped_phase[1:2], scan.magnitude[1:2], ECHO_TIMES[1:2], B0, GEOMETRY)
    result = PIPELINE.reconstruct(single, OBJECT)
    assert any("one echo" in flag for flag in result.flags)
    where = INTERIOR & result.susceptibility.mask
    assert _correlation(result.susceptibility.chi, CHI, where) > 0.75


def test_nan_inside_is_refused_and_outside_ignored(scan: Scan) -> None:
    phase = scan.wrapped_phase.clone()
    phase[:, 0, 0, 0] = math.nan
    chi = PIPELINE.reconstruct(replace(scan, wrapped_phase=phase), OBJECT).susceptibility.chi
    assert bool(chi.isfinite().all())
    phase[1, 24, 23, 20] = math.nan
    with pytest.raises(NumericalError, match="phase"):
        PIPELINE.reconstruct(replace(scan, wrapped_phase=phase), OBJECT)


def test_wrong_masks_are_refused(scan: Scan) -> None:
    with pytest.raises(InconsistentError, match="mask"):
        PIPELINE.reconstruct(scan, torch.zeros_like(OBJECT))
    with pytest.raises(InconsistentError, match="mask"):
        PIPELINE.reconstruct(scan, OBJECT[1:])
    with pytest.raises(InconsistentError, match="their own"):
        PIPELINE.reconstruct(LocalField(CHI, OBJECT, GEOMETRY), OBJECT)


@dataclass(frozen=True)
class _Stub:
    """A method that declares another input, or returns nonsense."""

    value: float = 0.0
    takes: ClassVar[Input] = "total_field"

    def __call__(self, data: TotalField | LocalField, /) -> Susceptibility:
        return Susceptibility(torch.full_like(data.field, self.value), data.mask)


class _Many(_Stub):
    takes: ClassVar[Input] = "local_fields"


class _Local(_Stub):
    takes: ClassVar[Input] = "local_field"


def test_a_single_step_method_gets_the_total_field() -> None:
    pipeline = replace(PIPELINE, inverter=_Stub())
    result = pipeline.reconstruct(TotalField(_total_field(), OBJECT, GEOMETRY))
    assert result.local_field is None
    assert torch.equal(result.susceptibility.mask, OBJECT)
    with pytest.raises(InconsistentError, match="total field"):
        pipeline.reconstruct(LocalField(CHI, OBJECT, GEOMETRY))


def test_a_multi_orientation_method_is_refused() -> None:
    with pytest.raises(UsageError, match="orientations"):
        replace(PIPELINE, inverter=_Many())


def test_a_map_with_nan_is_refused() -> None:
    with pytest.raises(NumericalError, match="NaN"):
        replace(PIPELINE, inverter=_Local(math.nan)).reconstruct(LocalField(CHI, OBJECT, GEOMETRY))


@dataclass(frozen=True)
class _Pair:
    """A method with two masks; the reliable one leaves out a source."""

    hole: tuple[float, float, float] = (5, 2, 0)

    def pair(self, evidence: Evidence, /) -> MaskPair:
        assert evidence.first_echo is not None
        return MaskPair(OBJECT, OBJECT & ~_ball(self.hole, 5))

    def __call__(self, evidence: Evidence, /) -> torch.Tensor:
        return self.pair(evidence).filled


def test_two_masks_make_two_passes(scan: Scan) -> None:
    # an offset that is smoothed over another mask is another offset
    pipeline = replace(PIPELINE, offset=KeepOffset())
    pair = _Pair().pair(scan_evidence(scan))
    joined = pipeline.reconstruct(scan, pair)
    assert torch.equal(
        replace(pipeline, mask=_Pair()).reconstruct(scan).susceptibility.chi,
        joined.susceptibility.chi,
    )
    first = pipeline.reconstruct(scan, OBJECT).susceptibility
    second = pipeline.reconstruct(scan, pair.reliable).susceptibility
    chi, source = joined.susceptibility.chi, _ball((5, 2, 0), 3)
    assert torch.equal(joined.susceptibility.mask, first.mask)
    # apart from their zeros: inside of the hole the first pass, elsewhere the second one
    for one, where in ((first.chi, source), (second.chi, second.mask)):
        difference = (chi - one)[where]
        assert float(difference.max() - difference.min()) < 1e-5
    assert float(chi[joined.susceptibility.mask].mean()) == pytest.approx(0, abs=1e-6)
    assert joined.total_field is not None
    assert torch.equal(joined.total_field.mask, OBJECT)


def test_masks_see_the_first_echo_and_the_quality(scan: Scan) -> None:
    evidence = scan_evidence(scan)
    assert torch.equal(evidence.first_echo, scan.magnitude[0])
    quality = torch.from_numpy(evidence.phase_quality("a method"))
    torch.testing.assert_close(quality.float(), quality_map(scan))
    pipeline = replace(PIPELINE, mask=QualityMask(threshold=0.5))
    found = pipeline.object_mask(scan)
    assert float((found & OBJECT).sum()) > 0.9 * float(OBJECT.sum())


def test_quality_is_not_worked_out_for_who_does_not_ask(
    scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qsmnet.pipeline.quality_map", None)
    assert PIPELINE.object_mask(scan).any()

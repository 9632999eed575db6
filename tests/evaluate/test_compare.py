"""One field, several methods: what each is given, how it is scored, and what a failure leaves."""

import csv
import io

import numpy as np
import pytest
import torch
from qsm_ci.qsm_eval import score_arrays

from qsmnet.dipole import Dipole
from qsmnet.errors import WeightsError
from qsmnet.evaluate.compare import compare, referenced
from qsmnet.evaluate.cost import measure
from qsmnet.evaluate.table import metrics_csv, metrics_markdown, shown_rows, spectrum_csv
from qsmnet.geometry import Geometry
from qsmnet.inversion.tkd import TKD
from qsmnet.volumes import LocalField, Susceptibility

SHAPE = (20, 22, 24)


class Offset:
    """The truth plus a constant: perfect but for its reference."""

    takes = "local_field"

    def __init__(self, truth, offset):
        self.truth, self.offset = truth, offset

    def __call__(self, local):
        self.given = local
        return Susceptibility((self.truth + self.offset) * local.mask, local.mask, flags=("hm",))


class Failing:
    takes = "local_field"

    def __init__(self, error):
        self.error = error

    def __call__(self, _):
        raise self.error


class Broken:
    takes = "local_field"

    def __call__(self, local):
        return Susceptibility(torch.full_like(local.field, torch.nan), local.mask)


class SingleStep(Broken):
    takes = "total_field"


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    grid = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    mask = sum(g**2 for g in grid) < 0.8
    truth = 0.05 * torch.randn(SHAPE, generator=generator) * mask + 0.1 * mask
    geometry = Geometry((1.0, 1.0, 1.5), (0.0, 0.3, 1.0))
    field = Dipole(SHAPE, geometry, padding=2.0).forward(truth) * mask
    seg = torch.randint(0, 17, SHAPE, generator=generator)
    return LocalField(field, mask, geometry, noise=0.001), truth, seg


def test_every_method_gets_the_same_field(case):
    local, truth, _ = case
    methods = {"a": Offset(truth, 0.0), "b": Offset(truth, 0.3)}
    compare(local, truth, methods)
    assert methods["a"].given is methods["b"].given is local


def test_the_reference_is_the_same_for_all(case):
    local, truth, seg = case
    a, b = compare(local, truth, {"a": Offset(truth, 0.0), "b": Offset(truth, 0.3)}, seg)
    for result in (a, b):
        assert abs(float(result.chi[local.mask].mean())) < 1e-6
        assert result.scores["xsim"] == pytest.approx(1, abs=1e-5)
        assert result.scores["nrmse"] < 1e-3
        assert max(result.spectrum.error) < 1e-4
    assert a.flags == ("hm",)


def test_scores_are_the_oracle_s(case):
    local, truth, seg = case
    (result,) = compare(local, truth, {"tkd": TKD(0.1)}, seg)
    true = referenced(Susceptibility(truth, local.mask), local.mask).numpy()
    # qsm-ci reads files as float64 and would otherwise sum in float32
    chi, true = result.chi.double().numpy(), true.astype(np.float64)
    expected, _ = score_arrays(chi, true, local.mask.numpy(), seg=seg.numpy())
    assert result.scores == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_a_failure_has_its_row_and_stops_nobody(case):
    local, truth, _ = case
    error = WeightsError("unet", "no such released weights", "train them")
    methods = {"bad": Failing(error), "nan": Broken(), "step": SingleStep(), "tkd": TKD()}
    results = {r.inverter: r for r in compare(local, truth, methods)}
    assert results["bad"].error == str(error)
    assert "no finite value" in results["nan"].error
    assert "takes total_field" in results["step"].error
    assert results["bad"].chi is None
    assert results["bad"].scores == {}
    assert results["tkd"].error == ""


def test_an_interrupt_is_no_failure_of_a_method(case):
    local, truth, _ = case
    with pytest.raises(KeyboardInterrupt):
        compare(local, truth, {"stop": Failing(KeyboardInterrupt())})


def test_without_truth_there_is_cost_alone(case):
    local, _, _ = case
    (result,) = compare(local, None, {"tkd": TKD()})
    assert result.scores == {}
    assert result.spectrum is None
    assert result.seconds > 0


def test_a_smaller_mask_stays_zero_outside_and_lowers_the_coverage(case):
    local, truth, _ = case

    class Eroding(Offset):
        def __call__(self, local):
            smaller = local.mask & local.mask.roll(3, 0)
            return Susceptibility((truth + 1) * smaller, smaller)

    (result,) = compare(local, truth, {"small": Eroding(truth, 0)})
    assert 0.5 < result.scores["coverage"] < 0.95


def test_partly_broken_maps_keep_their_finite_part(case):
    local, truth, _ = case

    class Partly(Offset):
        def __call__(self, local):
            chi = truth.clone()
            chi[10, 10:12, 10:14] = torch.nan
            return Susceptibility(chi, local.mask)

    (result,) = compare(local, truth, {"partly": Partly(truth, 0)})
    assert not result.error
    assert result.scores["coverage"] == pytest.approx(1 - 8 / int(local.mask.sum()))
    assert result.scores["nrmse"] < 50


def test_csv_has_a_row_an_inverter_and_all_digits(case):
    local, truth, seg = case
    results = compare(local, truth, {"tkd": TKD(), "bad": Failing(ValueError("a, b\nc"))}, seg)
    rows = list(csv.DictReader(io.StringIO(metrics_csv(results))))
    assert [row["inverter"] for row in rows] == ["tkd", "bad"]
    assert float(rows[0]["nrmse"]) == results[0].scores["nrmse"]
    assert set(results[0].scores) < set(rows[0])
    assert rows[1]["error"] == "a, b c"
    assert rows[1]["nrmse"] == ""


def test_markdown_says_what_failed(case):
    local, truth, _ = case
    results = compare(local, truth, {"tkd": TKD(), "bad": Failing(ValueError("no luck"))})
    text = metrics_markdown(results)
    lines = text.splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "- **bad failed**: no luck" in lines
    header, rows = shown_rows(results)
    assert len(header) == len(rows[0])
    assert rows[1][1] == "failed"


def test_spectrum_csv_has_a_column_a_method(case):
    local, truth, _ = case
    results = compare(local, truth, {"a": TKD(0.1), "b": TKD(0.3), "bad": Broken()})
    rows = list(csv.DictReader(io.StringIO(spectrum_csv(results))))
    assert list(rows[0]) == ["d_low", "d_high", "a", "b"]
    assert len(rows) == 20
    assert float(rows[3]["b"]) == results[1].spectrum.error[3]


def test_peak_memory_sees_what_a_call_allocates_and_frees():
    def allocate():
        return float(np.ones(30_000_000).sum())  # 229 MiB, gone at the end

    measured = measure(allocate)
    assert measured.value == 30_000_000
    assert 200 < measured.peak_memory_mib < 400
    assert measure(lambda: 1).peak_memory_mib < 50

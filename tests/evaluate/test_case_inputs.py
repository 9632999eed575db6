"""What an inversion is given: changes that are known, and scores of maps that are known."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from qsmnet.cli.compose import available, compose
from qsmnet.cli.study_tools import make
from qsmnet.dipole import Dipole
from qsmnet.errors import UsageError
from qsmnet.evaluate.case_changes import background_of, told_wrongly
from qsmnet.evaluate.case_inputs import Case, Input
from qsmnet.evaluate.case_scores import COLUMNS, score_case
from qsmnet.evaluate.heads import Condition, Heads, Scene
from qsmnet.evaluate.subjects import Subject
from qsmnet.evaluate.tools import Tools
from qsmnet.geometry import Geometry
from qsmnet.inversion.tkd import TKD
from qsmnet.simulate import tissue
from qsmnet.simulate.head.protocol import Protocol
from qsmnet.volumes import LocalField, Susceptibility

TINY = Protocol((32, 40, 36), (6.0, 6.0, 6.0), 3.0, (0.003, 0.006, 0.009), 0.03, 15.0)
LESIONS = ({"chi": 1.0, "radius": 9.0}, {"chi": -1.5, "radius": 9.0})
OBLIQUE = ["shape=[24,28,20]", "acquisition.b0_dir=[0.3,0.2,0.9]"]
OBLIQUE += ["acquisition.voxel_size=[1.0,1.2,1.6]", "acquisition.noise_free=1"]
TOOLS = Tools(available, compose, make, pytest.fail, pytest.fail)


@pytest.fixture(scope="module")
def scene():
    heads = Heads(compose("simulator", "head"), {"tiny": TINY}, seed=1)
    head = heads.get(3, "choose", Condition("lesions", "tiny", LESIONS, snr=40.0))
    return Scene(head, erosion=12.0, margin=2)


@pytest.fixture(scope="module")
def head(scene):
    return Subject.of_head(scene)


@pytest.fixture(scope="module")
def phantom():
    return Subject.of_phantom(compose("simulator", "brain", OBLIQUE).scene(5, 0), erosion=3.0)


def truth(subject):
    return Susceptibility(subject.chi * subject.mask, subject.mask)


def test_a_condition_has_its_own_snr(scene):
    assert scene.head.protocol.snr == 40.0
    assert Condition("c", "tiny", snr=40.0).kind == "plain_snr40"
    assert Condition("c", "tiny", LESIONS).kind == "lesions"


def test_a_head_is_given_as_the_scan_tells_it(scene, head):
    given, wanted = Input().prepare(head, TOOLS).given, scene.local_field()
    assert torch.equal(given.field, wanted.field)
    assert torch.equal(given.noise, wanted.noise)
    assert given.field_support is None
    assert given.radians_per_ppm == wanted.radians_per_ppm
    rest = (given.field - head.exact)[head.mask] / head.noise[head.mask]
    assert float(rest.std()) == pytest.approx(1, abs=0.05)


def test_a_phantom_is_given_as_its_scene_tells_it(phantom):
    made = compose("simulator", "brain", OBLIQUE[:-1]).scene(5, 0)
    subject = Subject.of_phantom(made)
    given, wanted = subject.local_field(), made.as_local_field()
    assert torch.allclose(given.field, wanted.field)
    assert torch.allclose(given.noise, made.noise * made.field_support)
    assert phantom.local_field().noise is None


@pytest.mark.parametrize(
    "how", [Input(turn=[0, 1]), Input(turn=[1, 2]), Input(turn=[2, 0]), Input(factor=3.0)]
)
def test_turns_and_factors_come_back(phantom, how):
    # odd and even sizes, three edges, an oblique B0: a wrong sign or axis would show
    case, method = how.prepare(phantom, TOOLS), TKD(0.2, kernel="prism")
    plain = method(phantom.local_field())
    back = case.restore(method(case.given))
    assert torch.equal(back.mask, phantom.mask)
    assert torch.allclose(back.chi, plain.chi, atol=2e-5 * float(plain.chi.abs().max()))
    assert not torch.equal(case.given.field, phantom.local_field().field)


@pytest.mark.parametrize("degrees", [0.0, 15.0, 30.0])
def test_b0_is_wrong_by_as_much_as_is_said(phantom, degrees):
    told = told_wrongly(phantom.geometry, degrees, (1.0, 1.0, 1.5))
    cosine = np.dot(told.b0_dir, phantom.geometry.b0_dir)
    assert math.degrees(math.acos(min(1.0, cosine))) == pytest.approx(degrees, abs=1e-4)
    assert told.voxel_size == pytest.approx((1.0, 1.2, 2.4))
    assert told_wrongly(Geometry((1, 1, 1), (0, 0, 1)), 30, (1, 1, 1)).tilt_degrees == (
        pytest.approx(30)
    )


def test_wrong_geometry_is_told_and_the_truth_stays(phantom):
    case = Input(b0_error=30.0).prepare(phantom, TOOLS)
    assert case.given.geometry != phantom.geometry
    assert case.subject.geometry == phantom.geometry
    errors = [
        score_case(each, TKD(0.2, kernel="prism")(each.given), detailed=False)["nrmse"]
        for each in (Input().prepare(phantom, TOOLS), case)
    ]
    assert errors[1] > 1.2 * errors[0]


def test_noise_is_replaced(phantom):
    noisy = Input(sd=0.01).prepare(phantom, TOOLS).given
    rest = (noisy.field - phantom.exact)[phantom.mask]
    assert float(rest.std()) == pytest.approx(0.01, rel=0.1)
    assert noisy.noise_level() == pytest.approx(0.01)
    other = Input(sd=0.02).prepare(phantom, TOOLS).given
    assert torch.allclose((other.field - phantom.exact)[phantom.mask], 2 * rest, atol=1e-6)
    clean = Input(sd=0.0, unmasked=True).prepare(phantom, TOOLS).given
    assert clean.noise is None
    assert torch.equal(clean.field, phantom.exact)
    assert bool(clean.support.all())


def test_erosion_takes_mask_and_data(phantom):
    given = Input(sd=0.01, erosion=3.0).prepare(phantom, TOOLS).given
    assert 0 < int(given.mask.sum()) < int(phantom.mask.sum())
    assert not given.field[~given.mask].any()
    assert not given.noise[~given.mask].any()
    assert torch.equal(given.support > 0, given.mask)


def test_a_ball_brings_its_field(phantom):
    case = Input(source=-3.0, radius=3.0).prepare(phantom, TOOLS)
    subject = case.subject
    assert float(subject.chi.min()) == pytest.approx(-3.0, rel=0.05)
    dipole = Dipole(tuple(subject.chi.shape), subject.geometry, "prism", padding=2.0)
    exact = dipole.forward(subject.chi * subject.mask)
    assert torch.allclose(subject.exact, exact, atol=1e-4)
    assert (subject.segmentation == tissue.CALCIFICATION).any()
    half = replace(truth(subject), chi=0.5 * subject.chi * subject.mask)
    scores = score_case(case, half)
    assert scores["calcification_ratio"] == pytest.approx(0.5, abs=1e-4)
    assert math.isnan(scores["bleed_ratio"])


def test_a_residual_background_is_harmonic_in_the_mask(head):
    added = background_of(head)
    inside = head.mask
    assert float(added[inside].mean()) == pytest.approx(0, abs=1e-6)
    assert float(added[inside].std()) == pytest.approx(float(head.exact[inside].std()), rel=1e-4)
    assert not added[~inside].any()
    case = Input(residual=0.2).prepare(head, TOOLS)
    change = case.given.field - head.local_field().field
    assert torch.allclose(change, 0.2 * added, atol=1e-6)

    def bend(volume):
        rolled = [volume.roll(s, a) for s in (1, -1) for a in range(3)]
        return float((sum(rolled) - 6 * volume)[head.inner].std() / volume[head.inner].std())

    assert bend(added) < 0.3 * bend(head.exact)


@dataclass(frozen=True)
class Louder:
    """An error as those of training: noise twice as strong, said so."""

    factor: float

    def draw(self, rng):
        return {"more": self.factor * float(rng.uniform(1, 1.5))}

    def apply(self, record, scene, forward):
        assert forward(scene.chi).shape == scene.chi.shape
        field = scene.local_field + record["more"] * scene.mask
        return replace(scene, local_field=field, noise=scene.noise + 1.0)


def test_an_error_of_training_plugs_in(head):
    how = Input(corruption={"_target_": "louder", "factor": 2.0})
    there = replace(TOOLS, make=lambda settings: Louder(settings["factor"]))
    assert how.there(there)
    assert not how.there(replace(TOOLS, make=lambda _: None))
    given = how.prepare(head, there).given
    change = (given.field - head.local_field().field)[head.mask]
    assert 2.0 <= float(change.mean()) <= 3.0
    assert torch.allclose(given.noise, (head.told + 1.0) * head.mask)
    assert given.magnitude is not None


def test_what_a_mapping_describes():
    assert make({"_target_": "qsmnet.inversion.tkd.TKD", "threshold": 0.3}) == TKD(0.3)
    assert make({"_target_": "qsmnet.simulate.cheese.Cheese"}) is None
    assert make({"_target_": "qsmnet.inversion.tkd.Cheese"}) is None
    with pytest.raises(UsageError, match="outside of qsmnet"):
        make({"_target_": "os.system"})
    with pytest.raises(UsageError, match="change its settings"):
        make({"_target_": "qsmnet.inversion.tkd.TKD", "cheese": 1})


def test_a_background_is_removed_from_the_total_field(scene, head):
    case = Input(background="vsharp").prepare(head, TOOLS)
    assert case.given.field.shape == case.subject.chi.shape == head.chi.shape
    whole = compose("background", "vsharp")(scene.total_field())
    assert torch.equal(case.given.field, whole.field[scene.box])
    assert case.given.harmonic_removed == whole.harmonic_removed


def test_a_mask_that_was_found_widens_the_box(scene, head):
    wide = torch.zeros_like(scene.head.mask)
    wide[1:-1, 1:-1, 1:-1] = True

    def front(preset):
        assert preset == "mine"
        return lambda scan: LocalField(scan.wrapped_phase[0], wide, scan.geometry)

    case = Input(preset="mine").prepare(head, replace(TOOLS, front=front))
    assert torch.equal(case.given.field, scene.head.phase[0])
    assert torch.equal(case.subject.mask, scene.head.mask)
    assert score_case(case, truth(case.subject), detailed=False)["nrmse"] < 1e-3


def test_what_cannot_be_given(phantom):
    with pytest.raises(UsageError, match="needs a head"):
        Input(background="pdf").prepare(phantom, TOOLS)
    with pytest.raises(ValueError, match="one of background, preset and corruption"):
        Input(background="pdf", preset="default")


def test_the_truth_is_without_error(head):
    scores = score_case(Case(head, head.local_field(), lambda found: found), truth(head))
    assert set(scores) <= set(COLUMNS)
    for name in ("slope", "dgm_slope", "bleed_ratio", "calcification_ratio", "xsim"):
        assert scores[name] == pytest.approx(1, abs=1e-3)
    for name in ("nrmse", "nrmse_inner", "bias_white_matter", "rmse_white_matter", "e05"):
        assert scores[name] == pytest.approx(0, abs=1e-3)


def test_quick_scores_are_the_same(head):
    case = Input().prepare(head, TOOLS)
    found = TKD(0.2)(case.given)
    quick, all_ = (score_case(case, found, detailed) for detailed in (False, True))
    assert {"nrmse", "xsim", "nrmse_dgm", "bleed_ratio", "rmse_white_matter"} <= quick.keys()
    assert "hfen" in all_.keys() - quick.keys()
    for name, value in quick.items():
        assert value == pytest.approx(all_[name], nan_ok=True)

"""Each term of the loss: zero at the truth, positive off it, relative, blind to a constant."""

from dataclasses import replace

import pytest
import torch

from qsmnet.dipole import Dipole, sampled_kernel
from qsmnet.networks.kqsm_he2022 import KQSMHe2022
from qsmnet.networks.unet import UNet
from qsmnet.training.losses import HeLoss, Loss, fine_part

TERMS = ("l1", "l2", "gradient", "data_consistency", "kspace", "fine")


def only(term):
    return Loss(**dict.fromkeys(TERMS, 0.0) | {term: 1.0})


def wrong(batch, size=0.03):
    noise = torch.randn(batch.chi.shape, generator=torch.Generator().manual_seed(1))
    return batch.chi + size * noise * batch.mask


@pytest.mark.parametrize("term", TERMS)
def test_term_is_zero_at_the_truth_and_grows_off_it(term, batch):
    loss = only(term)
    truth, near, far = (
        float(loss(prediction, batch)[0])
        for prediction in (batch.chi, wrong(batch, 0.01), wrong(batch, 0.1))
    )
    assert truth == pytest.approx(0, abs=2e-6)
    assert 1e-3 < near < far
    assert far == pytest.approx(10 * near, rel=0.01)


@pytest.mark.parametrize(
    "weights", [{"l1": -1.0}, {"l2": float("nan")}, {"l1": 0.0, "gradient": 0.0}]
)
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="weights must be numbers from 0"):
        Loss(**weights)


@pytest.mark.parametrize("threshold", [0.0, -0.1, 0.7, float("nan")])
def test_threshold_is_one_of_the_kernel(threshold):
    with pytest.raises(ValueError, match="threshold"):
        HeLoss(threshold)


@pytest.mark.parametrize("term", TERMS)
def test_term_is_blind_to_a_constant_inside_and_to_all_outside(term, batch):
    loss, prediction = only(term), wrong(batch)
    expected = float(loss(prediction, batch)[0])
    offset = prediction + 0.7 + 5 * (1 - batch.mask)
    assert float(loss(offset, batch)[0]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("term", TERMS)
def test_term_is_relative_to_the_truth(term, batch):
    loss, prediction = only(term), wrong(batch)
    expected = float(loss(prediction, batch)[0])
    scaled = float(loss(20 * prediction, replace(batch, chi=20 * batch.chi))[0])
    assert scaled == pytest.approx(expected, rel=1e-4)


def test_total_is_the_weighted_sum(batch):
    loss = Loss(l1=0.5, l2=2.0, gradient=0.1, data_consistency=3.0, kspace=0.2, fine=0.7)
    total, terms = loss(wrong(batch), batch)
    assert set(terms) == set(TERMS)
    assert float(total) == pytest.approx(
        sum(getattr(loss, name) * float(value) for name, value in terms.items()), rel=1e-5
    )
    assert set(only("l2")(wrong(batch), batch)[1]) == {"l2"}


def test_l1_and_l2_by_hand(batch):
    inside = batch.mask > 0
    found = {t: float(only(t)(wrong(batch), batch)[0]) for t in ("l1", "l2")}
    expected = {"l1": 0.0, "l2": 0.0}
    for i in range(2):
        truth, guess = (v[i][inside[i]] for v in (batch.chi, wrong(batch)))
        truth, guess = truth - truth.mean(), guess - guess.mean()
        error = (guess - truth) / truth.abs().mean()
        expected["l1"] += float(error.abs().mean()) / 2
        expected["l2"] += float(error.square().mean().sqrt()) / 2
    assert found == pytest.approx(expected, rel=1e-4)


def test_fine_part_has_no_smooth_error(batch):
    """Of a truth with detail, a ramp is a small fine error, and a checkerboard a large one."""
    x = torch.linspace(-1, 1, batch.chi.shape[-1])
    signs = torch.tensor([1.0, -1.0]).repeat(batch.chi.shape[-1])[: batch.chi.shape[-1]]
    smooth, rough = (
        float(only("fine")(batch.chi + 0.1 * change * batch.mask, batch)[0])
        for change in (x, signs)
    )
    assert smooth < 0.5 * rough
    constant = torch.ones_like(batch.chi)
    assert not fine_part(constant * batch.mask, batch.mask).abs().gt(1e-5).any()


def test_a_constant_counts_where_the_mean_is_not_free(batch):
    loss = Loss(l1=1.0, gradient=0.0, free_mean=False)
    offset = batch.chi + 0.01
    total = float(loss(offset, batch)[0])
    sizes = [float(c[m > 0].abs().mean()) for c, m in zip(batch.chi, batch.mask, strict=True)]
    assert total == pytest.approx(sum(0.01 / size for size in sizes) / 2, rel=1e-4)
    assert float(Loss(l1=1.0, gradient=0.0)(offset, batch)[0]) < 1e-5


@pytest.mark.parametrize("term", TERMS)
def test_gradient_is_finite_even_at_the_truth_and_without_a_mask(term, batch):
    empty = replace(batch, mask=torch.cat([batch.mask[:1], 0 * batch.mask[1:]]))
    for each, prediction in ((batch, batch.chi), (empty, wrong(batch))):
        leaf = prediction.clone().requires_grad_()
        only(term)(leaf, each)[0].backward()
        assert leaf.grad.isfinite().all()


def test_gradient_counts_edges_inside_alone(batch):
    # a step along x between two slabs, error in one of them: only their border differs
    mask = torch.ones_like(batch.mask)
    truth = torch.randn(mask.shape, generator=torch.Generator().manual_seed(2))
    prediction = truth.clone()
    prediction[:, :, :6] += 1.0
    scale = float((truth - truth.mean((-3, -2, -1), keepdim=True)).abs().mean())
    flat = replace(batch, mask=mask, chi=truth)
    # one of 11 layers of differences along x, nothing along y and z
    found = float(only("gradient")(prediction, flat)[0])
    assert found == pytest.approx(1 / 11 / 3 / scale, rel=0.02)
    apart = mask.clone()
    apart[:, :, 5:7] = 0
    separate = replace(batch, mask=apart, chi=truth * apart)
    assert float(only("gradient")(prediction * apart, separate)[0]) == pytest.approx(0, abs=1e-5)


def test_prediction_is_zero_outside_of_the_mask(batch):
    network = UNet((4,))
    chi = Loss().predict(network, batch)
    assert not chi[batch.mask == 0].any()
    assert chi[batch.mask > 0].any()


class TestPublishedLoss:
    @pytest.fixture
    def consistent(self, batch):
        """A field that is D chi on the network's own periodic grid, known everywhere."""
        chi = batch.chi - batch.chi.mean((-3, -2, -1), keepdim=True)
        everywhere = torch.ones_like(chi)
        dipole = Dipole(tuple(chi.shape[-3:]), batch.geometry)
        return replace(
            batch, chi=chi, field=dipole.forward(chi), mask=everywhere, support=everywhere
        )

    @staticmethod
    def spectrum(chi):
        axes = (-3, -2, -1)
        return torch.fft.fftshift(torch.fft.fftn(chi[:, 0], dim=axes), dim=axes)

    def test_is_zero_at_the_truth(self, consistent):
        total, terms = HeLoss()(self.spectrum(consistent.chi), consistent)
        assert float(total) == pytest.approx(0, abs=1e-4)
        assert set(terms) == {"spectrum", "tkd"}

    def test_terms_by_hand(self, consistent):
        # one number off by 2 + 1i everywhere: mean square 2.5, mean absolute value 1.5
        prediction = self.spectrum(consistent.chi) + (2 + 1j)
        total, terms = HeLoss()(prediction, consistent)
        assert float(terms["spectrum"]) == pytest.approx(2.5, rel=1e-3)
        assert float(terms["tkd"]) == pytest.approx(1.5, rel=1e-3)
        assert float(total) == pytest.approx(4, rel=1e-3)

    def test_zero_frequency_counts_as_published(self, consistent):
        """D(0) is 1/3: of a field with a mean, k = 0 is asked to be three times its sum."""
        prediction = self.spectrum(consistent.chi)
        offset = replace(consistent, field=consistent.field + 0.01)
        _, terms = HeLoss()(prediction, offset)
        n = consistent.chi[0].numel()
        kernels = [sampled_kernel(tuple(prediction.shape[1:]), g) for g in consistent.geometry]
        known = sum(int((kernel.abs() > 0.1).sum()) + 1 for kernel in kernels)
        # one number of two, real and imaginary, in each of two items
        assert float(terms["tkd"]) == pytest.approx(2 * 3 * 0.01 * n / (2 * known), rel=1e-3)

    def test_is_asked_of_the_network_s_spectrum(self, batch):
        network = KQSMHe2022(width=4, blocks=1).eval()
        prediction = HeLoss().predict(network, batch)
        assert prediction.is_complex()
        assert torch.equal(
            prediction, network.spectrum(batch.field * batch.support, batch.geometry)
        )
        total, _ = HeLoss()(prediction, batch)
        total.backward()
        assert network.stem.weight.grad.isfinite().all()

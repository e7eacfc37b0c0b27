import math

import pytest
import torch

from selftaught.errors import UserError
from selftaught.objectives.srgan import (
    FEATURE_SCALE,
    srgan_adversarial,
    srgan_discriminator,
    srgan_perceptual,
    srgan_pixel,
    srgan_vgg,
    total_variation,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probability(logit):
    return 1 / (1 + math.exp(-logit))


def test_pixel_loss_entry_by_entry():
    g, x = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    total = sum((a - b) ** 2 for a, b in zip(g.flatten().tolist(), x.flatten().tolist(), strict=True))
    assert srgan_pixel(g, x).item() == pytest.approx(total / (2 * 3 * 4 * 5), rel=1e-12)


def test_vgg_loss_entry_by_entry_is_not_averaged_over_channels():
    g, x = draw(2, 7, 3, 4), draw(2, 7, 3, 4, seed=1)
    expected = 0.0
    for image in range(2):
        for row in range(3):
            for column in range(4):
                for channel in range(7):
                    a, b = g[image, channel, row, column].item(), x[image, channel, row, column].item()
                    expected += (a / 12.75 - b / 12.75) ** 2
    expected /= 2 * 3 * 4
    assert srgan_vgg(g, x).item() == pytest.approx(expected, rel=1e-12)
    assert srgan_vgg(g, x).item() == pytest.approx(7 * FEATURE_SCALE**2 * srgan_pixel(g, x).item(), rel=1e-12)


def test_vgg_loss_scales_with_the_square_of_the_feature_scale_and_is_0_for_equal_maps():
    g, x = draw(1, 4, 3, 3), draw(1, 4, 3, 3, seed=1)
    ratio = srgan_vgg(g, x) / srgan_vgg(g, x, feature_scale=1.0)
    assert ratio.item() == pytest.approx(1 / 12.75**2)
    assert ratio.item() == pytest.approx(0.00615, abs=5e-6)
    assert srgan_vgg(x, x) == srgan_pixel(x, x) == 0


def test_adversarial_losses_from_probabilities():
    real, fake = draw(5), draw(5, seed=1)
    by_hand = sum(-math.log(probability(t)) for t in fake.tolist())
    assert srgan_adversarial(fake, reduction="sum").item() == pytest.approx(by_hand, rel=1e-12)
    assert srgan_adversarial(fake[:, None]).item() == pytest.approx(by_hand / 5, rel=1e-12)
    d = sum(-math.log(probability(t)) for t in real.tolist()) / 5
    d += sum(-math.log(1 - probability(t)) for t in fake.tolist()) / 5
    assert srgan_discriminator(real, fake).item() == pytest.approx(d, rel=1e-12)


def test_losses_of_a_discriminator_that_cannot_tell():
    zero = torch.zeros(3)
    assert srgan_adversarial(zero).item() == pytest.approx(math.log(2))
    assert srgan_adversarial(zero, reduction="sum").item() == pytest.approx(3 * math.log(2))
    assert srgan_discriminator(zero, zero).item() == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sure_discriminators_leave_losses_and_gradients_finite(dtype):
    logits = torch.tensor([-60000.0, -100.0, 0.0, 100.0, 60000.0]).to(dtype).requires_grad_()
    loss = srgan_adversarial(logits) + srgan_discriminator(logits, logits)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_the_generators_gradient_does_not_vanish_where_the_discriminator_is_sure():
    logits = torch.tensor([-30.0], dtype=torch.float64, requires_grad=True)
    srgan_adversarial(logits).backward()
    assert logits.grad.item() == pytest.approx(-1, abs=1e-9)  # of log(1 - D) it would be 1e-13


def test_perceptual_loss_and_its_limit():
    content, logits = draw(1)[0].square(), draw(4, seed=1)
    terms = srgan_perceptual(content, logits)
    assert terms["loss"].item() == pytest.approx(content.item() + 1e-3 * terms["adversarial"].item(), rel=1e-12)
    assert srgan_perceptual(content, logits, adv_weight=0)["loss"] == content
    summed = srgan_perceptual(content, logits, reduction="sum")["adversarial"]
    assert summed.item() == pytest.approx(4 * terms["adversarial"].item(), rel=1e-12)


def test_total_variation_entry_by_entry():
    image = draw(2, 3, 4, 5)
    expected = 0.0
    for picture in image.tolist():
        for y in range(4):
            for x in range(5):
                square = 0.0
                for plane in picture:
                    square += (plane[y + 1][x] - plane[y][x]) ** 2 if y < 3 else 0.0
                    square += (plane[y][x + 1] - plane[y][x]) ** 2 if x < 4 else 0.0
                expected += math.sqrt(square)
    assert total_variation(image).item() == pytest.approx(expected / (2 * 4 * 5), rel=1e-12)


def test_total_variation_of_a_flat_image_has_no_gradient():
    image = torch.full((1, 3, 4, 4), 0.3, requires_grad=True)
    total_variation(image).backward()
    assert image.grad.eq(0).all()


@pytest.mark.parametrize("loss", [srgan_pixel, srgan_vgg], ids=lambda f: f.__name__)
def test_gradients_of_content_losses(loss):
    x = draw(2, 3, 3, 3)
    g = draw(2, 3, 3, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: loss(v, x), g)
    assert torch.autograd.gradgradcheck(lambda v: loss(v, x), g)


def test_gradients_of_the_others():
    t = draw(5).requires_grad_()
    assert torch.autograd.gradcheck(srgan_adversarial, t)
    assert torch.autograd.gradgradcheck(srgan_adversarial, t)
    assert torch.autograd.gradcheck(lambda v: srgan_discriminator(v, draw(5, seed=1)), t)
    assert torch.autograd.gradcheck(total_variation, draw(1, 2, 3, 4).requires_grad_())


def test_half_precision_is_computed_in_float32():
    g, x = draw(1, 64, 8, 8).half() * 100, draw(1, 64, 8, 8, seed=1).half() * 100
    assert srgan_vgg(g, x).dtype == torch.float32
    assert srgan_vgg(g, x, feature_scale=1.0).item() == pytest.approx(
        (g.double() - x.double()).square().sum(1).mean().item(), rel=1e-5
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: srgan_pixel(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4)),
        lambda: srgan_vgg(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 1, 1)),
        lambda: srgan_adversarial(torch.zeros(2, 3)),
        lambda: srgan_adversarial(torch.zeros(2), reduction="none"),
        lambda: srgan_discriminator(torch.zeros(2), torch.zeros(2, 1, 6, 6)),
        lambda: srgan_perceptual(torch.zeros(2), torch.zeros(2)),
        lambda: total_variation(torch.zeros(3, 4, 4)),
    ],
)
def test_shapes_that_would_be_broadcast_are_refused(call):
    with pytest.raises(UserError):
        call()


def test_total_variation_of_bytes_or_of_nothing_is_refused():
    image = torch.tensor([[[[0.0, 200.0], [0.0, 0.0]]]])
    assert total_variation(image) == pytest.approx((200 + 200) / 4)
    with pytest.raises(UserError, match="floating-point"):
        total_variation(image.to(torch.uint8))  # 0 - 200 is 56 there
    with pytest.raises(UserError, match="shape"):
        total_variation(image[:0])

"""Networks of text erasing: sizes, counts of parameters, what the policy draws, tiles without seams."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from selftaught.errors import UserError
from selftaught.networks import (
    EraseNet,
    ErasureDiscriminator,
    StylePolicy,
    TextEraser,
    TextMaskDiscriminator,
    erasenet,
    pooled_features,
    surroundings,
)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def conv(a: int, b: int, k: int) -> int:
    return a * b * k * k + b


def test_the_counts_of_the_paper() -> None:
    residual = sum(conv(a, a, 3) + conv(a, b, 3) + (a != b) * conv(a, b, 1) + 2 * b for a, b in (
        (64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)
    ))  # fmt: skip
    enter = conv(3, 32, 4) + conv(32, 32, 3) + conv(32, 64, 4) + conv(512, 512, 1)
    ups = sum(conv(a, b, 3) for a, b in ((512, 256), (512, 128), (256, 64), (128, 32), (64, 3)))
    sides = conv(64, 3, 1) + conv(32, 3, 1)
    masks = sum(conv(a, b, 3) + conv(b, b // 2, 3) for a, b in ((512, 256), (256, 128), (128, 64)))
    masks += conv(64, 32, 3) + conv(32, 3, 1)
    refine = conv(3, 32, 5) + conv(32, 64, 4) + conv(64, 64, 3) + conv(64, 128, 4) + 8 * conv(128, 128, 3)
    refine += conv(384, 64, 3) + conv(64, 64, 3) + conv(192, 32, 3) + conv(32, 16, 3) + conv(16, 3, 3)
    refine += conv(32, 64, 1) + conv(64, 128, 1)
    bridges = sum(
        conv(c, c, 1) + conv(c, 2 * c, 3) + conv(2 * c, 2 * c, 3) + conv(2 * c, c, 1) for c in (256, 128, 64, 32)
    )
    assert count(EraseNet()) == residual + enter + ups + bridges + sides + masks + refine == 19_737_615
    widths = [3, 64, 128, 256, 256, 256, 256]
    branch = sum(conv(a, b, 4) for a, b in pairwise(widths))
    assert count(ErasureDiscriminator()) == 2 * branch + conv(512, 1, 4)
    pairs = sum(conv(a, a, 3) + conv(a, a // 2, 3) for a in (256, 128, 64))
    assert count(TextMaskDiscriminator()) == pairs + conv(32, 32, 3) + conv(32, 3, 1)
    sizes = (2, 12, 3, 3, 4, 2, 2, 2, 2, 2, 4, 3, 2, 8, 4, 3, 5, 5)
    lstm = 4 * 100 * (32 + 100 + 2)
    assert count(StylePolicy()) == sum(sizes) * 32 + lstm + 101 * sum(sizes)


@pytest.mark.parametrize("options", [{}, {"spectral": False, "fill": True}])
def test_shapes_and_gradients(options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    net = EraseNet(2, width=4, **options)
    found = net(torch.rand(2, 2, 64, 32))
    shapes = [tuple(one.shape) for one in found]
    assert shapes == [
        (2, 64, 2, 1), (2, 2, 16, 8), (2, 2, 32, 16), (2, 2, 64, 32), (2, 2, 64, 32), (2, 2, 64, 32), (2, 32, 4, 2)
    ]  # fmt: skip
    sum(one.square().mean() for one in found).backward()
    assert all(p.grad is not None for p in net.parameters())
    with pytest.raises(UserError, match="32"):
        net(torch.rand(1, 2, 40, 32))
    seen = TextMaskDiscriminator(2, features=32)(found.mask_features.detach())
    assert seen.shape == (2, 2, 64, 32)


def test_the_discriminator_sees_picture_and_hole() -> None:
    torch.manual_seed(0)
    judge = ErasureDiscriminator(3, width=4, levels=3, sigmoid=True)
    image, mask = torch.rand(1, 3, 64, 32), torch.ones(1, 1, 64, 32)
    mask[..., :16, :] = 0
    scores = judge(image, mask)
    assert scores.shape == (1, 5 * 1)
    assert ((scores > 0) & (scores < 1)).all()
    assert not torch.equal(scores, judge(image, torch.ones_like(mask)))
    with pytest.raises(UserError, match="from 32 pixels"):
        judge(image[..., :16], mask[..., :16])


def test_the_policy_scores_what_it_drew() -> None:
    torch.manual_seed(0)
    policy = StylePolicy()
    drawn = policy(5)
    again = policy.score(drawn.actions)
    torch.testing.assert_close(again.log_probs, drawn.log_probs)
    torch.testing.assert_close(again.entropies, drawn.entropies)
    assert (drawn.actions < torch.tensor(policy.sizes)).all()
    first = policy.lstm(torch.zeros(1, 1, 32))[0][0]
    torch.testing.assert_close(policy.heads[0](first).log_softmax(-1)[0, drawn.actions[0, 0]], drawn.log_probs[0, 0])
    other = StylePolicy((2, 3), features=6)
    assert other.lstm.num_layers == 2
    assert other(features=torch.rand(4, 6)).actions.shape == (4, 2)
    for wrong in (lambda: other(3), lambda: policy(features=torch.rand(2, 6)), lambda: other.score(drawn.actions)):
        with pytest.raises(UserError):
            wrong()


def test_surroundings_leave_what_is_no_text() -> None:
    image = torch.full((1, 1, 40, 40), 0.3)
    text = torch.zeros(1, 1, 40, 40)
    image[..., 10:16, 8:30], text[..., 10:16, 8:30] = 0.9, 1
    torch.testing.assert_close(surroundings(image, text), torch.full_like(image, 0.3), atol=0.02, rtol=0)
    assert torch.equal(surroundings(image, 0 * text), image)
    unsure = 0.05 + 0.75 * text  # right, but not certain
    torch.testing.assert_close(surroundings(image, erasenet.sure(unsure)), surroundings(image, text))
    assert (surroundings(image, unsure) - 0.3).max() > 0.1
    assert erasenet.sure(torch.tensor([0.5, 0.25, 0.75])).tolist() == [0.5, 0.0, 1.0]


def test_the_eraser_takes_any_size_and_changes_text_alone() -> None:
    torch.manual_seed(0)
    net = EraseNet(3, width=2, spectral=False, fill=True).eval()
    eraser, image = TextEraser(net).eval(), torch.rand(1, 3, 50, 70)
    with torch.no_grad():
        found = eraser(image)
        boxes = torch.zeros(1, 1, 50, 70)
        boxes[..., 5:20, 10:40] = 1
        given = eraser(image, boxes=boxes)
        whole = TextEraser(net, compose="none")(image)
    assert found.shape == image.shape
    assert torch.equal(given[..., 20:, :], image[..., 20:, :])
    torch.testing.assert_close(given[..., 5:20, 10:40], whole[..., 5:20, 10:40])
    with pytest.raises(UserError, match="boxes"):
        TextEraser(net, compose="boxes")(image)


def test_tiles_leave_no_seam() -> None:
    torch.manual_seed(0)
    net = EraseNet(1, width=1, spectral=False).eval()
    image = torch.rand(1, 1, 40, 1100)
    with torch.no_grad():
        net.rise2[-1].weight.mul_(0.05)  # into the range of pictures
        whole, parts = (TextEraser(net, compose="none")(image, tile=tile) for tile in (0, 512))
    assert (whole - parts).abs().max() < 1 / 255


def test_pooled_features() -> None:
    features = pooled_features("random")
    assert [tuple(one.shape) for one in features(torch.rand(1, 3, 32, 24))] == [
        (1, 64, 16, 12), (1, 128, 8, 6), (1, 256, 4, 3)
    ]  # fmt: skip

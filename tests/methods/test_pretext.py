"""Rotation, jigsaw and relative position as wired: their questions have the right answers, and answering teaches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from selftaught import methods
from selftaught.errors import UserError
from selftaught.views import jigsaw
from tests.methods.resuming import cut_and_whole

SMALL = {"encoder": "test_vit", "image_size": 32}
MADE = {
    "rotation": {}, "jigsaw": {"permutations": 20, "hidden": 32, "dropout": 0.0}, "relative-position": {"head": "32"},
}  # fmt: skip


def made(slug: str, **options):
    torch.manual_seed(0)
    return methods.get(slug)(**SMALL | MADE[slug] | options)


def batch_for(method, n: int = 6) -> dict:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, method.channels, 32, 32), generator=g, dtype=torch.uint8)
    return method.on_after_batch_transfer({"views": [images], "index": torch.arange(n)})


@pytest.mark.parametrize("encoder", ["test_vit", "cnn-small"])
@pytest.mark.parametrize("slug", MADE)
def test_the_loss_is_the_cross_entropy_of_its_own_answers(slug: str, encoder: str) -> None:
    method = made(slug, encoder=encoder, channels=4)
    batch = batch_for(method)
    assert len(method.views()) == 1
    torch.manual_seed(1)
    shown, labels = method.questions(batch["views"][0])
    torch.manual_seed(1)
    terms = method.loss(batch)
    logits = method.answers(shown)
    assert terms["loss"].item() == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)
    assert terms["accuracy"].item() == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    terms["loss"].backward()
    moved = [p for p in method.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in moved)
    assert method.predict(batch).shape == (6, method.encoder.dim)


def test_turning_back_gives_the_image_to_the_bit() -> None:
    method = made("rotation")
    x = torch.randn(3, 3, 32, 32)
    copies, labels = method.questions(x)
    assert labels.tolist() == [0, 1, 2, 3] * 3
    for row, (copy, label) in enumerate(zip(copies, labels.tolist(), strict=True)):
        assert torch.equal(torch.rot90(copy, -label, (1, 2)), x[row // 4])
    half = made("rotation", turns=2)
    copies, labels = half.questions(x)
    assert torch.equal(copies[1], x[0].flip(1, 2))
    assert labels.tolist() == [0, 1] * 3


@pytest.mark.parametrize("form", ["tokens", "tiles"])
def test_a_puzzle_is_the_tiles_in_the_order_of_its_label(form: str) -> None:
    method = made("jigsaw", form=form, normalise_tiles=False)
    places = torch.arange(9.0).view(3, 3).repeat_interleave(10, 0).repeat_interleave(10, 1)
    x = torch.nn.functional.pad(places, (0, 2, 0, 2)).expand(5, 3, 32, 32)
    shown, labels = method.questions(x)
    assert shown.shape[3] == (8 if form == "tokens" else 9)
    for tiles, label in zip(shown, labels, strict=True):
        assert torch.equal(tiles[:, 0, 0, 0].long(), method.orders[label])
        assert all((tile == tile[0, 0, 0]).all() for tile in tiles)


def test_a_transformer_sees_tiles_without_positions() -> None:
    """Shuffled alike, tiles give the same tokens in another order; the delivered encoder has no positions either."""
    method = made("jigsaw").eval()
    assert not method.encoder.model.pos_embed.any()
    tiles = torch.randn(2, 9, 3, 8, 8)
    order = torch.randperm(9).expand(2, 9)
    tokens, moved = (method.encoder.tokens(jigsaw.assemble(t))[1] for t in (tiles, jigsaw.shuffle(tiles, order)))
    places = jigsaw.assemble(torch.arange(9).view(1, 9, 1, 1, 1).expand(1, 9, 1, 2, 2))[0, 0].flatten()
    for place in range(9):
        a, b = tokens[:, places == order[0, place]], moved[:, places == place]
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="form=tiles"):
        made("jigsaw", encoder="cnn-small", form="tokens")


def test_a_neighbour_lies_where_its_label_says() -> None:
    method = made("relative-position", colour="keep")
    rows = torch.arange(32.0)[:, None].expand(32, 32)
    x = torch.stack([rows, rows.T, rows]).expand(40, 3, 32, 32)
    shown, labels = method.questions(x)
    down, right = (shown[:, 1, k, 0, 0] - shown[:, 0, k, 0, 0] for k in (0, 1))
    for dy, dx, label in zip(down, right, labels.tolist(), strict=True):
        row, column = divmod(label if label < 4 else label + 1, 3)
        for moved, side in ((dy, row - 1), (dx, column - 1)):
            assert abs(moved - 10 * side) <= 4  # a place of -2 to 2 in either cell
    assert len(set(labels.tolist())) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slug", "encoder", "steps", "options", "least"),
    [
        ("rotation", "cnn-small", 50, {}, 0.5),
        ("jigsaw", "test_vit", 25, {"permutations": 12}, 0.4),
        ("relative-position", "test_vit", 60, {"colour": "keep"}, 0.25),
    ],
)
def test_it_learns_to_answer(slug: str, encoder: str, steps: int, options: dict, least: float) -> None:
    """Far above chance (0.25, 0.08, 0.125) on digits it has not seen."""
    method = made(slug, encoder=encoder, channels=1, **options)
    digits = torch.from_numpy(load_digits().images).float()[:, None] / 4 - 2
    x = torch.nn.functional.interpolate(digits, (32, 32), mode="bilinear")
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], 2e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        method.loss({"views": [x[torch.randint(1500, (32,))]]})["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        assert method.eval().loss({"views": [x[1500:]]})["accuracy"] > least


@pytest.mark.slow
def test_a_puzzle_resumes_to_the_bit(tmp_path: Path) -> None:
    options = {
        "preset": "laptop", "image_size": 32, "steps": 10, "batch_size": 32, "workers": 0, "quiet": True,
        "knn_every": 0, "permutations": 6, "hidden": 16,
    }  # fmt: skip
    whole, cut = cut_and_whole("jigsaw", tmp_path, options)
    assert all(torch.equal(cut[name], weights) for name, weights in whole.items())

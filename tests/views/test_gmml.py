"""GMML: how much is corrupted, where, by what; stage 2 mixes images of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught.errors import UserError
from selftaught.views.gmml import gmml, gmml_batch, gmml_blocks, gmml_mix

X = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_statistics_of_the_blocks() -> None:
    rng = np.random.default_rng(0)
    shares, aligned = [], []
    for _ in range(60):
        blocks, mask = gmml_blocks(224, 224, rng=rng)
        shares.append(mask.mean())
        assert all(1 <= h < 67 and 1 <= w < 67 for _, _, h, w in blocks)
        patches = gmml_blocks(224, 224, align=16, rng=rng)[1].reshape(14, 16, 14, 16)
        aligned.append((patches == patches[:, :1, :, :1]).all())
    assert min(shares) >= 0.5
    assert max(shares) < 0.6
    assert all(aligned)
    assert gmml_blocks(64, 64, maximum=0.0, rng=rng)[0] == []
    assert 0.3 <= gmml_blocks(64, 48, maximum=0.3, rng=rng)[1].mean() < 0.45
    assert gmml_blocks(64, 64, maximum=0.8, rng=rng)[1].mean() >= 0.5


@pytest.mark.parametrize("kind", ["zeros", "noise", "shuffle", "other"])
def test_what_a_block_becomes(kind: str) -> None:
    other = torch.full_like(X, 9.0)
    found, mask = gmml(X, kind=kind, other=other, rng=np.random.default_rng(1))
    assert torch.equal(found[mask == 0], X[mask == 0])
    assert (mask == mask[:1]).all()
    hidden = found[mask == 1]
    if kind == "zeros":
        assert (hidden == 0).all()
    if kind == "other":
        assert (hidden == 9).all()
    if kind == "noise":
        assert abs(hidden.std().item() - 1) < 0.1
        assert torch.isin(hidden, X).float().mean() < 0.05
    if kind == "shuffle":
        assert torch.isin(hidden, X).all()
        assert (hidden != X[mask == 1]).float().mean() > 0.9


def test_batches_and_their_mixing() -> None:
    rng = np.random.default_rng(2)
    x = torch.stack([X + k for k in (0.0, 50.0, 100.0, 150.0)] * 4)
    corrupted, masks = gmml_batch(x, kinds=("zeros", "noise"), rng=rng)
    assert len({tuple(m.flatten().tolist()) for m in masks}) == len(x)
    images, hidden = gmml_mix(x, corrupted, masks, rng=rng)
    anew = torch.tensor([not torch.equal(a, b) for a, b in zip(hidden, masks, strict=True)])
    assert 3 <= int(anew.sum()) <= 13
    assert torch.equal(images[~anew], corrupted[~anew])
    shares = hidden[anew].mean((1, 2, 3))
    assert (shares >= 0.3).all()
    assert (shares < 0.45).all()
    assert torch.equal(images[hidden == 0], x[hidden == 0])
    inside = images[anew][hidden[anew] == 1]
    assert torch.isin(inside, x).all(), "blocks of another image, as it is"
    again = gmml_batch(x[:2], rng=np.random.default_rng(5))[0]
    assert torch.equal(again, gmml_batch(x[:2], rng=np.random.default_rng(5))[0])


def test_what_makes_no_sense_is_refused() -> None:
    for call, message in (
        (lambda: gmml_blocks(32, 32, align=16), "don't fit 32x32"),
        (lambda: gmml_blocks(32, 32, maximum=1.0), "maximum=1.0"),
        (lambda: gmml(X, kind="paint"), "kind=paint"),
        (lambda: gmml(X, kind="other"), "another image"),
        (lambda: gmml_batch(X[None], kinds=()), "at least one"),
    ):
        with pytest.raises(UserError, match=message):
            call()

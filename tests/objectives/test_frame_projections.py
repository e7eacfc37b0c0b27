import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selftaught.errors import UserError
from selftaught.objectives import (
    frame_projections,
    frame_projections_mappers,
    frame_projections_mappers_terms,
    frame_projections_terms,
    simclr,
)


def embeddings(rows=6, width=8):
    g = torch.Generator().manual_seed(0)
    return [2 * torch.randn(rows, width, generator=g, dtype=torch.float64) for _ in range(5)]


def literal_nt_xent(a, b, temperature):
    z = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in (*a.tolist(), *b.tolist())]
    n, total = len(a), 0.0
    for i in range(2 * n):
        logits = [sum(p * q for p, q in zip(z[i], z[j], strict=True)) / temperature for j in range(2 * n)]
        below = sum(math.exp(v) for j, v in enumerate(logits) if j != i)
        total -= logits[(i + n) % (2 * n)] - math.log(below)
    return total / (2 * n)


@pytest.mark.parametrize("map_scale", ["per_batch", "none"])
@pytest.mark.parametrize("map_loss", ["l1", "mse"])
def test_equals_its_formula(map_scale, map_loss):
    e_t, e_w, e_f, mapped_w, mapped_f = embeddings()
    named = frame_projections_terms(
        e_t, e_w, e_f, mapped_w=mapped_w, mapped_f=mapped_f, map_scale=map_scale, map_loss=map_loss
    )
    pairs = {"time_wavelet": (e_t, e_w), "time_fourier": (e_t, e_f), "wavelet_fourier": (e_w, e_f)}
    expected = {name: literal_nt_xent(*views, 0.15) for name, views in pairs.items()}
    expected["identity"] = sum(expected.values())
    mapping = 0.0
    for output, target in ((mapped_w, e_w), (mapped_f, e_f)):
        target = target / target.norm(dim=1, keepdim=True)
        differences = [abs(v) for v in (output - target).flatten().tolist()]
        mapping += sum(d if map_loss == "l1" else d * d for d in differences) / len(differences)
    expected["map"] = mapping / (6 if map_scale == "per_batch" else 1)
    expected["loss"] = expected["identity"] + expected["map"]
    assert {k: v.item() for k, v in named.items()} == pytest.approx(expected, rel=1e-9)
    total = frame_projections(
        e_t, e_w, e_f, mapped_w=mapped_w, mapped_f=mapped_f, map_scale=map_scale, map_loss=map_loss
    )
    assert total.item() == pytest.approx(expected["loss"], rel=1e-9)


def test_a_subset_of_the_views():
    e_t, e_w, e_f, _, mapped_f = embeddings()
    assert frame_projections(e_t, None, e_f).item() == pytest.approx(simclr(e_t, e_f, temperature=0.15).item())
    assert frame_projections(e_t, e_w, None).item() == pytest.approx(simclr(e_t, e_w, temperature=0.15).item())
    named = frame_projections_terms(e_t, None, e_f, mapped_f=mapped_f)
    assert set(named) == {"loss", "identity", "time_fourier", "map"}
    assert "map" not in frame_projections_terms(e_t, e_w, e_f)


def test_equal_views_rotation_and_equal_samples():
    e, *_ = embeddings()
    assert frame_projections(e, e, e).item() == pytest.approx(3 * simclr(e, e, temperature=0.15).item(), rel=1e-12)
    views = embeddings()[:3]
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).Q
    rotated = frame_projections(*(v @ rotation for v in views)).item()
    assert rotated == pytest.approx(frame_projections(*views).item(), rel=1e-12)
    same = [v[:1].repeat(6, 1) for v in views]
    same = [same[0]] * 3
    assert frame_projections(*same).item() == pytest.approx(3 * math.log(2 * 6 - 1), abs=1e-12)


def test_one_sample_has_no_identity_loss():
    e_t, e_w, e_f, *_ = (e[:1] for e in embeddings())
    assert frame_projections(e_t, e_w, e_f).item() == pytest.approx(0, abs=1e-12)


def test_normalised_inputs_change_nothing_and_everything_gets_a_gradient():
    raw = [e.requires_grad_() for e in embeddings()]
    e_t, e_w, e_f, mapped_w, mapped_f = raw
    loss = frame_projections(e_t, e_w, e_f, mapped_w=mapped_w, mapped_f=mapped_f)
    unit = [F.normalize(e, dim=1) for e in (e_t, e_w, e_f)]
    assert frame_projections(*unit, mapped_w=mapped_w, mapped_f=mapped_f).item() == pytest.approx(loss.item())
    loss.backward()
    assert all(e.grad.abs().sum() > 0 for e in raw)
    named = frame_projections_terms(e_t, e_w, e_f, mapped_w=mapped_w)
    gradient = torch.autograd.grad(named["map"], e_w)[0]
    assert gradient.abs().sum() > 0


def test_stage_two_is_the_plain_mean_distance():
    r_w, r_f, mapped_w, mapped_f, _ = embeddings()
    expected_w, expected_f = (mapped_w - r_w).abs().mean().item(), (mapped_f - r_f).abs().mean().item()
    named = frame_projections_mappers_terms(mapped_w, mapped_f, r_w, r_f)
    assert {k: v.item() for k, v in named.items()} == pytest.approx(
        {"wavelet": expected_w, "fourier": expected_f, "loss": expected_w + expected_f}
    )
    assert frame_projections_mappers(None, mapped_f, None, r_f).item() == pytest.approx(expected_f)
    squared = frame_projections_mappers(mapped_w, None, r_w, None, map_loss="mse").item()
    assert squared == pytest.approx((mapped_w - r_w).square().mean().item())


def test_float32_under_autocast():
    single = [e.float() for e in embeddings()[:3]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = frame_projections(*(e.bfloat16() for e in single))
        exact = frame_projections(*single)
    assert loss.dtype == torch.float32
    assert torch.equal(exact, frame_projections(*single))


def test_wrong_input_is_refused():
    e_t, e_w, e_f, mapped_w, _ = embeddings()
    with pytest.raises(UserError, match="at least one of"):
        frame_projections(e_t, None, None)
    with pytest.raises(UserError, match="without the wavelet view"):
        frame_projections(e_t, None, e_f, mapped_w=mapped_w)
    with pytest.raises(UserError, match="one shape"):
        frame_projections(e_t, e_w[:3], e_f)
    with pytest.raises(UserError, match="one shape"):
        frame_projections(e_t, e_w, e_f, mapped_w=mapped_w[:3])
    with pytest.raises(UserError, match="map_scale"):
        frame_projections(e_t, e_w, e_f, map_scale="batch")
    with pytest.raises(UserError, match="map_loss"):
        frame_projections(e_t, e_w, e_f, map_loss="l2")
    with pytest.raises(UserError, match="temperature"):
        frame_projections(e_t, e_w, e_f, temperature=0)
    with pytest.raises(UserError, match="no mapped vector"):
        frame_projections_mappers(None, None, e_w, e_f)
    with pytest.raises(UserError, match="without the fourier view"):
        frame_projections_mappers(None, e_f, e_w, None)


def test_a_mapper_learns_on_frozen_encoders():
    torch.manual_seed(0)
    x = torch.randn(128, 32)
    time, fourier = nn.Linear(32, 16).requires_grad_(False), nn.Linear(32, 16).requires_grad_(False)
    before = [p.clone() for p in (*time.parameters(), *fourier.parameters())]
    mapper = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))
    optimiser = torch.optim.Adam(mapper.parameters(), 1e-2)
    losses = []
    for _ in range(100):
        loss = frame_projections_mappers(None, mapper(time(x)), None, fourier(x))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(a, b) for a, b in zip(before, (*time.parameters(), *fourier.parameters()), strict=True))

"""The text tower, the two towers together, gradient caching."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from selftaught import networks
from selftaught.errors import UserError
from selftaught.networks import DualEncoder, TextTransformer, cached_forward


def _tower(**options) -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(64, context=12, width=16, heads=2, layers=2, **options)


def _tokens(*lengths: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    rows = torch.zeros(len(lengths), 12, dtype=torch.int64)
    for row, length in zip(rows, lengths, strict=True):
        row[0], row[1 : length - 1], row[length - 1] = 62, torch.randint(1, 60, (length - 2,), generator=g), 63
    return rows


def test_size_and_start_are_clip_s() -> None:
    tower = TextTransformer()
    assert sum(p.numel() for p in tower.parameters()) == 63_165_952
    block = tower.transformer.resblocks[3]
    assert tower.token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert tower.positional_embedding.std().item() == pytest.approx(0.01, rel=0.05)
    assert block.attn.in_proj_weight.std().item() == pytest.approx(512**-0.5, rel=0.02)
    assert block.attn.out_proj.weight.std().item() == pytest.approx((512 * 24) ** -0.5, rel=0.02)
    assert block.mlp.c_fc.weight.std().item() == pytest.approx(1024**-0.5, rel=0.02)
    assert block.mlp.c_proj.weight.std().item() == pytest.approx((512 * 24) ** -0.5, rel=0.02)


def test_it_is_open_clip_s_tower() -> None:
    transformer = pytest.importorskip("open_clip.transformer")
    torch.manual_seed(0)
    theirs = transformer.TextTransformer(
        context_length=12, vocab_size=64, width=16, heads=2, layers=2, output_dim=8, act_layer=transformer.QuickGELU
    ).eval()
    ours = _tower()
    state = {name: value for name, value in theirs.state_dict().items() if name in ours.state_dict()}
    assert set(state) == set(ours.state_dict())
    ours.load_state_dict(state)
    tokens = _tokens(4, 12, 7)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens) @ theirs.text_projection, theirs(tokens), rtol=1e-5, atol=1e-5)


def test_it_is_causal_and_blind_to_what_follows_the_end() -> None:
    tower, tokens = _tower().eval(), _tokens(5, 5)
    other = tokens.clone()
    other[:, 5:] = 7
    with torch.no_grad():
        torch.testing.assert_close(tower(tokens), tower(other))
        changed = tokens.clone()
        changed[0, 2] = 3 if tokens[0, 2] != 3 else 4
        assert (tower(tokens)[0] - tower(changed)[0]).abs().max() > 1e-3
        end = tokens.argmax(1)
        torch.testing.assert_close(tower.of_embeddings(tower.token_embedding(tokens), end), tower(tokens))
    for wrong in (torch.zeros(2, 13, dtype=torch.int64), torch.full((1, 4), 64)):
        with pytest.raises(UserError):
            tower(wrong)


@pytest.mark.parametrize(
    "options", [{"dropout": 0.3}, {"dropout": 0.3, "dropout_place": "residual"}, {"drop_path": 0.4}]
)
def test_dropout_acts_on_strong_texts_in_training_alone(options) -> None:
    tower, tokens = _tower(**options), _tokens(6, 9)
    with torch.no_grad():
        assert torch.equal(tower(tokens), tower(tokens))
        assert not torch.equal(tower(tokens, True), tower(tokens, True))
        tower.eval()
        assert torch.equal(tower(tokens, True), tower(tokens))
    with pytest.raises(UserError):
        _tower(dropout=1.0)


def test_two_towers_with_two_sets_of_heads() -> None:
    torch.manual_seed(0)
    image = networks.encoder("cnn-small", image_size=16)
    model = DualEncoder(image, _tower(), dim=8, separate=True, hidden=12)
    features = model.image(torch.randn(4, 3, 16, 16))
    for head in ("z", "h"):
        for made in (model.embed_images(features, head), model.embed_texts(model.text(_tokens(3, 4, 5, 6)), head)):
            torch.testing.assert_close(made.norm(dim=1), torch.ones(4))
    assert model.temperature.item() == pytest.approx(0.07)
    assert model.local_temperature.item() == pytest.approx(0.1)
    with torch.no_grad():
        model.scale.fill_(9.0)
        model.scale_h.fill_(-1.0)
    model.clamp_scales()
    assert model.scale.item() == pytest.approx(math.log(100))
    assert model.scale_h.item() == 0
    plain = DualEncoder(image, _tower(), dim=8)
    assert plain.local_temperature.item() == pytest.approx(0.07)
    assert not any(p is None for p in (plain.z_image.weight, plain.z_text.weight))
    with pytest.raises(UserError, match="separate_proj only"):
        plain.embed_images(features, "h")
    widths = {
        name: sum(p.numel() for p in networks.clip_head(2048, 256, name).parameters()) for name in ("linear", "mlp")
    }
    assert widths == {"linear": 2048 * 256, "mlp": 2048 * 4096 + 4096 * 4096 + 4096 * 256 + 5 * 4096 + 4096 + 256}


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_cached_gradients_are_those_of_the_plain_step(dropout: float) -> None:
    tower = _tower(dropout=dropout).double()
    tokens = _tokens(*[3 + k % 9 for k in range(10)])
    found = []
    for piece in (0, 4):
        tower.zero_grad()
        torch.manual_seed(1)
        parts = [tower(part, True) for part in tokens.split(4)] if not piece else None
        z = torch.cat(parts) if parts else cached_forward(tower, tokens, piece, True)
        loss = F.cross_entropy(z @ z.detach().roll(1, 0).T, torch.arange(10))
        loss.backward()
        found.append([loss.detach(), *(p.grad.clone() for p in tower.parameters())])
    for plain, cached in zip(*found, strict=True):
        torch.testing.assert_close(cached, plain, rtol=1e-10, atol=1e-12)


def test_caching_moves_running_statistics_once() -> None:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(8, 4)
    torch.cat([nets[0](part) for part in x.split(4)]).square().sum().backward()
    cached_forward(nets[1], x, 4).square().sum().backward()
    for (name, one), two in zip(nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, msg=name)
    for one, two in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    with pytest.raises(UserError, match="pieces of -1 rows"):
        cached_forward(nets[0], x, -1)


def test_caching_keeps_one_piece_s_activations() -> None:
    """Counted as tensors saved for the backward pass before it begins."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 4)), torch.randn(64, 8)
    held = []
    for piece in (0, 8):
        total = 0

        def pack(t: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            cached_forward(net, x, piece)
        held.append(total)
    assert held[1] < held[0] / 3

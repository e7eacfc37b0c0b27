"""RetFiner's objectives, masker and hard negatives; BERT with cross-attention."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.networks import CrossBERT, LanguageHead, matching_head
from selftaught.objectives.retfiner import IGNORED


def _texts(rows: int = 4, length: int = 9) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 40, (rows, length), generator=g)
    tokens[:, 0] = 1
    for row in range(rows):
        tokens[row, length - row :] = 0
    return tokens


@pytest.mark.parametrize("probability", [0.15, 0.6])
def test_the_masker_hides_as_it_says(probability: float) -> None:
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(106, 500, (800, 30), generator=g)
    tokens[:, 25:] = 0
    hidden, labels = objectives.mask_tokens(tokens, probability, generator=g)
    chosen = labels != IGNORED
    assert not chosen[:, 0].any()
    assert not chosen[:, 25:].any()
    assert chosen.any(1).all()
    assert abs(chosen[:, 1:25].float().mean() - probability) < 0.01
    assert torch.equal(labels[chosen], tokens[chosen])
    assert torch.equal(hidden[~chosen], tokens[~chosen])
    masked = (hidden == 103)[chosen].float().mean()
    same = (hidden == tokens)[chosen].float().mean()
    assert abs(masked - 0.8) < 0.02
    assert abs(same - 0.1) < 0.02
    others = hidden[chosen & (hidden != 103) & (hidden != tokens)]
    assert others.min() >= 106
    assert others.max() <= 30521
    one = torch.tensor([[101, 102, 0, 0]])
    assert objectives.mask_tokens(one, 0.01)[1].tolist() == [[IGNORED, 102, IGNORED, IGNORED]]
    with pytest.raises(UserError, match="nothing to hide"):
        objectives.mask_tokens(torch.tensor([[101, 0, 0]]))


def test_masked_language_is_the_mean_over_chosen_places() -> None:
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 4, 7, generator=g, dtype=torch.float64)
    labels = torch.full((3, 4), IGNORED)
    labels[0, 1], labels[0, 3], labels[2, 2] = 3, 0, 6
    total = 0.0
    for i, j in ((0, 1), (0, 3), (2, 2)):
        row = logits[i, j].tolist()
        total -= row[int(labels[i, j])] - math.log(sum(math.exp(x) for x in row))
    assert objectives.masked_language(logits, labels).item() == pytest.approx(total / 3)
    assert objectives.masked_language(logits, torch.full((3, 4), IGNORED)).item() == 0


def test_contrast_equals_its_closed_forms() -> None:
    eye, n = torch.eye(6, dtype=torch.float64), 6
    s = 1 / 0.07
    log_z = math.log(math.exp(s) + n - 1)
    own = 0.9 + 0.1 / n
    expected = -(own * (s - log_z) + (n - 1) * 0.1 / n * (0 - log_z))
    assert objectives.contrast_texts(eye, eye).item() == pytest.approx(expected)
    flat = torch.ones(6, 4, dtype=torch.float64)
    assert objectives.contrast_texts(flat, flat).item() == pytest.approx(math.log(6))
    g = torch.Generator().manual_seed(2)
    a, b = (torch.randn(5, 3, generator=g, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(objectives.contrast_texts(a, b), objectives.contrast_texts(b, a))
    none = torch.eye(5, dtype=torch.bool)
    torch.testing.assert_close(objectives.contrast_texts(a, b, same=none), objectives.contrast_texts(a, b))
    twice = torch.cat([b[:4], b[:1]])
    same = (twice[:, None] == twice).all(2)
    scores, total = F.normalize(a, dim=1) @ F.normalize(twice, dim=1).T / 0.07, 0.0
    for matrix in (scores, scores.T):
        for i in range(5):
            kept = [j for j in range(5) if j == i or not same[i, j]]
            log_p = matrix[i, kept] - matrix[i, kept].logsumexp(0)
            total -= float(0.9 * log_p[kept.index(i)] + 0.1 * log_p.mean()) / 10
    assert objectives.contrast_texts(a, twice, same=same).item() == pytest.approx(total)


def test_negatives_are_drawn_by_their_weights_and_never_one_s_own() -> None:
    s = torch.tensor([[9.0, 1.0, 3.0], [0.0, 9.0, 0.0], [2.0, 2.0, 9.0]], dtype=torch.float64)
    t2i, i2t = objectives.negative_weights(s)
    expected = (F.softmax(s, 1) + 1e-4).fill_diagonal_(0)
    torch.testing.assert_close(i2t, expected)
    torch.testing.assert_close(t2i, (F.softmax(s.T, 1) + 1e-4).fill_diagonal_(0))
    g = torch.Generator().manual_seed(0)
    drawn = torch.stack([objectives.hard_negatives(s, generator=g)[1] for _ in range(600)])
    assert not (drawn == torch.arange(3)).any()
    share = (drawn[:, 0] == 2).double().mean()
    assert abs(share - expected[0, 2] / expected[0].sum()) < 0.05
    same = torch.tensor([[True, False, True], [False, True, False], [True, False, True]])
    drawn = torch.stack([objectives.hard_negatives(s, same, generator=g)[1] for _ in range(50)])
    assert (drawn[:, 0] == 1).all()
    everything = objectives.hard_negatives(s, torch.ones(3, 3, dtype=torch.bool), generator=g)[0]
    assert not (everything == torch.arange(3)).any()
    with pytest.raises(UserError, match="no negatives"):
        objectives.negative_weights(s[:1, :1])
    head = matching_head(4)
    torch.nn.init.zeros_(head[3].weight)
    torch.nn.init.zeros_(head[3].bias)
    loss = objectives.text_matching(head(torch.randn(6, 4)), torch.tensor([1, 1, 0, 0, 0, 0]))
    assert loss.item() == pytest.approx(math.log(2))


def test_bert_is_hugging_face_s() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
        max_position_embeddings=16, is_decoder=True, add_cross_attention=True,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval()
    ours = CrossBERT(40, width=12, heads=3, layers=2, image=12, context=16).eval()
    missing = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not missing.missing_keys
    tokens, image = _texts(), torch.randn(4, 5, 12)
    keep = tokens != 0
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=keep.long(), encoder_hidden_states=image).last_hidden_state
        found = ours(tokens, image, causal=True)
    torch.testing.assert_close(found[keep], expected[keep], rtol=1e-4, atol=1e-5)


def test_what_sees_what() -> None:
    torch.manual_seed(0)
    net = CrossBERT(40, width=12, heads=3, layers=2, image=6, context=16).eval()
    tokens, image = _texts(), torch.randn(4, 5, 6)
    changed = tokens.clone()
    changed[:, 4] = 39 - changed[:, 4].clamp(min=1)
    with torch.no_grad():
        causal = (net(tokens, image, causal=True) - net(changed, image, causal=True)).abs().amax(2)
        assert causal[:, :4].max() < 1e-6
        assert causal[:, 4:6].max() > 1e-4
        both = (net(tokens, image) - net(changed, image)).abs().amax(2)
        assert both[:, :4].min() > 1e-7
        assert (net(tokens, image) - net(tokens, image + 1)).abs().max() > 1e-4
        assert torch.equal(net(tokens), net(tokens))
        padded = tokens.clone()
        longer = torch.cat([padded, torch.zeros(4, 3, dtype=torch.int64)], 1)
        torch.testing.assert_close(net(longer, image)[:, :9], net(tokens, image), rtol=1e-5, atol=1e-6)
    square = CrossBERT(40, width=12, heads=3, layers=1, image=12, context=16)
    square.copy_to_cross()
    layer = square.encoder.layer[0]
    for name, value in layer.attention.state_dict().items():
        assert torch.equal(layer.crossattention.state_dict()[name], value)
    head = LanguageHead(net)
    assert head(net(tokens), net).shape == (4, 9, 40)
    with pytest.raises(UserError, match="image tokens are"):
        net(tokens, image[:2])

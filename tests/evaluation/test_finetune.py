import copy

import numpy as np
import pytest
import torch
from torch import nn

from selftaught.errors import UserError
from selftaught.evaluation import finetune, linear


def encoder(dropout=0.0):
    """Six features, so that a random one tells little."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 6),
    )


@pytest.fixture(scope="module")
def images(digits):
    x, y, tx, ty = digits
    return torch.tensor(x).reshape(-1, 1, 8, 8)[:300], y[:300], torch.tensor(tx).reshape(-1, 1, 8, 8)[:400], ty[:400]


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_beyond_the_frozen_features_and_leaves_the_encoder_alone(images):
    x, y, tx, ty = images
    model = encoder().train()
    before, randomness = state(model), torch.get_rng_state()
    result = finetune(model, x, y, tx, ty, epochs=12, lr=1e-2, head_lr=0.1, batch=16)
    assert same(before, state(model))
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(randomness, torch.get_rng_state())
    with torch.no_grad():
        frozen = linear(copy.deepcopy(model).eval()(x), y, model.eval()(tx), ty)["accuracy"]
    assert result["accuracy"].mean > frozen.mean + 0.1
    assert result["accuracy"].mean > 0.85
    assert result.figures["history"][-1] < 0.3 * result.figures["history"][0]


def test_it_repeats_with_dropout_and_differs_by_seed(images):
    x, y, tx, ty = images
    runs = [finetune(encoder(0.3), x, y, tx, ty, epochs=1, seed=s).figures["history"] for s in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_a_callable_gives_the_same_as_the_tensor(images):
    x, y, tx, ty = images
    seen = []

    def fetch(rows):
        seen.append(rows)
        return x[rows]

    by_call = finetune(encoder(), fetch, y, lambda rows: tx[rows], ty, epochs=1)
    assert by_call == finetune(encoder(), x, y, tx, ty, epochs=1)
    assert sorted(torch.cat(seen[1:]).tolist()) == list(range(300))


def test_augment_sees_training_batches_only(images):
    x, y, tx, ty = images
    count = []

    def blank(batch):
        count.append(len(batch))
        return 0 * batch

    result = finetune(encoder(), x, y, tx, ty, epochs=1, augment=blank)
    assert sum(count) == 300
    assert result["accuracy"].mean < 0.35  # blank images teach nothing


class Probe(nn.Module):
    """An encoder that keeps what its copy looks like after every forward pass."""

    log: list = []

    def __init__(self):
        super().__init__()
        self.body = encoder()

    def forward(self, x):
        Probe.log.append((self.training, self.body[1].training, state(self.body)))
        return self.body(x)


@pytest.mark.parametrize("freeze", [False, True])
def test_frozen_batch_norm_stays_as_it_is(images, freeze):
    x, y, tx, ty = images
    Probe.log = []
    finetune(Probe(), x, y, tx, ty, epochs=1, freeze_bn=freeze)
    training = [(norm, weights) for mode, norm, weights in Probe.log if mode]
    first, last = training[0][1], Probe.log[-1][2]
    norms = [name for name in first if name.startswith(("1.", "5."))]
    assert all(norm is not freeze for norm, _ in training)
    assert all(torch.equal(first[name], last[name]) for name in norms) is freeze
    assert not torch.equal(first["0.weight"], last["0.weight"])
    assert not Probe.log[-1][0]  # judged in evaluation mode


def test_rates_reach_the_right_parameters(images):
    x, y, tx, ty = images
    Probe.log = []
    finetune(Probe(), x, y, tx, ty, epochs=1, lr=0.0, weight_decay=0.0, freeze_bn=True)
    assert same(Probe.log[0][2], Probe.log[-1][2])  # lr 0: only the head could have moved
    head_alone = finetune(nn.Flatten(), x, y, tx, ty, epochs=15, head_lr=0.03)  # nothing to train but the head
    assert head_alone["accuracy"].mean > 0.85
    frozen = finetune(encoder(), x, y, tx, ty, epochs=3, lr=0.0, head_lr=0.0, optimizer="sgd", freeze_bn=True)
    assert frozen.figures["history"][0] == pytest.approx(frozen.figures["history"][-1], rel=1e-4)


def test_recipes_and_series_and_a_last_batch_of_one(rng):
    y = np.arange(65) % 2
    x = torch.tensor(rng.normal(size=(65, 2, 20)) + 2 * y[:, None, None]).float()
    model = nn.Sequential(nn.Conv1d(2, 4, 5), nn.BatchNorm1d(4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    for options in ({"recipe": "barlow-twins"}, {"batch": 64}, {"batch": 32, "optimizer": "sgd", "lr": 0.01}):
        assert finetune(model, x, y, x, y, epochs=10, **options)["accuracy"].mean > 0.9


def test_errors(images):
    x, y, tx, ty = images
    flat = nn.Sequential(nn.Conv2d(1, 4, 3))
    for model, options, message in (
        (flat, {}, r"encoder: gives \(2, 4, 6, 6\)"),
        (encoder(), {"recipe": "none"}, "recipe"),
        (encoder(), {"optimizer": "lion"}, "optimizer"),
        (encoder(), {"epochs": 0}, "epochs"),
        (encoder(), {"batch": 1}, "batch"),
        (encoder(), {"lr": 1e30, "optimizer": "sgd", "epochs": 2}, "not finite"),
    ):
        with pytest.raises(UserError, match=message):
            finetune(model, x, y, tx, ty, **options)
    with pytest.raises(UserError, match="train labels: 299"):
        finetune(encoder(), x, y[:-1], tx, ty)
    with pytest.raises(UserError, match="float images"):
        finetune(encoder(), x.byte(), y, tx, ty)
    with pytest.raises(UserError, match="only class"):
        finetune(encoder(), x, 0 * y, tx, 0 * ty)


class HalfBlind(nn.Module):
    """Tokens of digits, of which the class token or the patch tokens tell nothing."""

    def __init__(self, blind):
        super().__init__()
        self.blind, self.place = blind, nn.Linear(64, 64)

    def tokens(self, x):
        whole = self.place(x.flatten(1))
        patches = torch.stack([2 * whole, torch.zeros_like(whole)], 1)
        return (torch.zeros_like(whole), patches) if self.blind == "class" else (whole, torch.zeros_like(patches))

    def forward(self, x):
        return self.tokens(x)[0]


@pytest.mark.parametrize("blind", ["class", "patches"])
def test_sits_head_sees_class_token_and_patches(images, blind):
    torch.manual_seed(0)
    options = {"epochs": 10, "lr": 0.0, "head_lr": 1e-2, "batch": 32}
    found = finetune(HalfBlind(blind), *images, head="sit", **options)["accuracy"].mean
    assert found > 0.8
    alone = finetune(HalfBlind(blind), *images, **options)["accuracy"].mean
    assert (alone < 0.3) == (blind == "class"), "a linear head has the class token alone"
    with pytest.raises(UserError, match="needs a class token"):
        finetune(encoder(), *images, head="sit")

import copy
import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from selftaught.errors import UserError
from selftaught.evaluation import finetune
from selftaught.evaluation.finetune import _Classifier
from selftaught.evaluation.tuning import (
    RECIPES,
    Tuning,
    add_drop_path,
    layer_scales,
    parse_tuning,
    rate_factor,
)
from selftaught.evaluation.tuning_images import make_mixer, mixed, other_chance, random_images
from selftaught.networks import VisionTransformer, encoder
from selftaught.networks.mae import start_as_mae


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    net = encoder("vit-pico", channels=1, image_size=8, patch_size=2, global_pool="avg")
    start_as_mae(net)
    return net


@pytest.fixture(scope="module")
def images(digits):
    x, y, tx, ty = digits
    return torch.tensor(x).reshape(-1, 1, 8, 8)[:300], y[:300], torch.tensor(tx).reshape(-1, 1, 8, 8)[:200], ty[:200]


def test_rates_of_layers_are_those_of_mae_and_beit():
    depth, decay = 4, 0.65
    net = encoder("vit-nano", channels=1, image_size=16)
    scales = layer_scales(net, decay)
    for name, scale in scales.items():  # He et al.: layer 0 embeds, block i is i + 1, all else is the head's
        own = name.removeprefix("model.")
        if own in ("cls_token", "pos_embed") or own.startswith("patch_embed"):
            layer = 0
        elif own.startswith("blocks"):
            layer = int(own.split(".")[1]) + 1
        else:
            layer = depth + 1
        assert scale == pytest.approx(decay ** (depth + 1 - layer)), name
    assert set(scales) == {name for name, _ in net.named_parameters()}
    own = layer_scales(VisionTransformer((8, 8), (2, 2), dim=8, depth=2, heads=2), 0.5)
    assert (own["patch_embed.weight"], own["blocks.1.mlp.fc1.bias"], own["norm.bias"]) == (0.125, 0.5, 1.0)


def test_rates_of_a_resnet_fall_with_depth():
    scales = layer_scales(encoder("resnet18", channels=1, image_size=32), 0.5)
    order = ["conv1.weight", *(f"layer{k}.0.conv1.weight" for k in (1, 2, 3, 4))]
    found = [scales[f"model.{name}"] for name in order]
    assert found == sorted(found)
    assert len(set(found)) == 5
    assert max(scales.values()) == 0.5  # the head alone has the whole rate


def test_groups_join_rate_and_decay_and_leave_tokens_without(vit):
    tuning = Tuning.of("mae", 512, layer_decay=0.5)
    assert tuning.lr == tuning.head_lr == pytest.approx(5e-4 * 512 / 256)
    model = _Classifier(copy.deepcopy(vit), torch.zeros(2, 1, 8, 8), 10, False)
    by_parameter = {id(p): g for g in model.groups(tuning) for p in g["params"]}
    assert len(by_parameter) == len(list(model.parameters()))
    told = {name: by_parameter[id(p)] for name, p in model.named_parameters()}
    assert told["head.weight"]["lr"] == tuning.lr
    assert told["encoder.model.blocks.0.attn.qkv.weight"]["lr"] == pytest.approx(tuning.lr * 0.5**2)
    bare = {name for name, group in told.items() if group["weight_decay"] == 0}
    tables = {"encoder.model.pos_embed", "encoder.model.cls_token"}
    assert bare == {name for name, p in model.named_parameters() if p.ndim <= 1} | (tables & set(told))


def test_the_schedule_is_a_warm_up_and_a_half_cosine():
    steps, warmup, lr, low = 100, 20, 2e-3, 1e-6
    for step in range(steps):
        if step < warmup:
            wanted = lr * step / warmup
        else:
            wanted = low + (lr - low) * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        assert lr * rate_factor(step, steps, warmup, low / lr) == pytest.approx(wanted)
    assert rate_factor(70, steps, warmup, cosine=False) == 1.0


@pytest.mark.parametrize("own", [False, True])
def test_branches_are_left_out_in_training_alone(vit, own):
    net = VisionTransformer((8, 8), (2, 2), channels=1, dim=8, depth=3, heads=2) if own else copy.deepcopy(vit)
    x = torch.randn(4, 1, 8, 8)
    before = net.eval()(x)
    add_drop_path(net, 0.6)
    blocks = net.blocks if own else net.model.blocks
    assert [block.drop_path2.drop_prob for block in blocks] == pytest.approx(np.linspace(0, 0.6, len(blocks)).tolist())
    assert torch.equal(net.eval()(x), before)
    torch.manual_seed(0)
    assert not torch.allclose(net.train()(x), before)


@pytest.mark.parametrize("changes", [{"mixup": 0.8, "cutmix": 0}, {"mixup": 0, "cutmix": 1.0}])
def test_what_an_image_shows_is_what_its_target_says(changes):
    target = torch.tensor([3, 0, 4, 1, 2, 2, 0])  # odd: the last is left unmixed
    x = target.float()[:, None, None, None].expand(-1, 2, 16, 16)  # every pixel of an image tells its class
    mixer = make_mixer(Tuning.of("adamw", 7, **changes), 5, 4)
    with other_chance(1):
        drawn = [mixed(x, target, mixer) for _ in range(5)]
    for shown, soft in drawn:
        assert torch.allclose(soft.sum(1), torch.ones(7))
        assert torch.allclose(shown.mean((1, 2, 3)), soft @ torch.arange(5.0), atol=1e-5)
        assert torch.equal(soft[6], nn.functional.one_hot(target[6], 5).float())
    assert any(((soft > 0) & (soft < 1)).any() for _, soft in drawn)
    assert torch.equal(x[:, 0, 0, 0], target.float())  # the images that were given stay


def test_smoothing_is_spread_over_all_classes():
    mixer = make_mixer(Tuning.of("adamw", 4, mixup=0.8, smoothing=0.1), 5, 4)
    with other_chance(0):
        _, soft = mixed(torch.randn(4, 1, 2, 2), torch.tensor([0, 0, 0, 0]), mixer)
    assert torch.allclose(soft, torch.tensor([[0.92, 0.02, 0.02, 0.02, 0.02]]).expand(4, 5))


class Logged(nn.Module):
    """An encoder that keeps its weights at every forward pass."""

    log: list = []

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Linear(64, 4)

    def forward(self, x):
        Logged.log.append((self.training, self.body.weight.detach().clone()))
        return self.body(x.flatten(1))


def test_the_average_is_a_literal_loop_over_the_steps(images):
    x, y, tx, ty = images
    logs = []
    for ema in (None, 0.7):
        Logged.log = []
        finetune(Logged(), x, y, tx, ty, epochs=2, batch=64, lr=0.05, ema=ema)
        logs.append(Logged.log)
    (plain, averaged) = logs
    steps = [weight for training, weight in plain if training] + [plain[-1][1]]
    assert len(steps) == 11  # 2 epochs of 5 batches, and what they end in
    wanted = steps[0]
    for weight in steps[1:]:
        wanted = 0.7 * wanted + 0.3 * weight
    assert torch.allclose(averaged[-1][1], wanted, atol=1e-6)
    assert not torch.allclose(averaged[-1][1], plain[-1][1], atol=1e-4)


def test_the_recipe_learns_repeats_and_leaves_chance_alone(vit, rng):
    y = np.arange(80) % 2
    x = torch.tensor(0.4 * rng.random((80, 1, 8, 8))).float()
    x[y == 0, :, :4] += 0.6  # light comes from above or from below
    x[y == 1, :, 4:] += 0.6
    split, options = (x[:60], y[:60], x[60:], y[60:]), {"recipe": "mae", "warmup_epochs": 1.0, "batch": 20}
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    runs = [finetune(vit, *split, epochs=2, pixels=(0.0, 1.0), seed=seed, **options) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0].figures["history"] != runs[2].figures["history"]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    plain = {"mixup": 0, "cutmix": 0, "crop": 0, "randaug": 0, "erasing": 0, "base_lr": 0.1}
    assert finetune(vit, *split, epochs=14, **options | plain)["accuracy"].mean > 0.9


def test_distorted_images_keep_their_kind(rng):
    x = torch.tensor(rng.random((40, 1, 8, 8))).float()
    flips = random_images(Tuning(crop=1.0), (0.5, 0.25), (1, 8, 8))
    normal = (x - 0.5) / 0.25
    with other_chance(0):
        torch.manual_seed(0)
        shown = flips(normal)
    whole = (
        torch.minimum((shown - normal).abs().amax((1, 2, 3)), (shown - normal.flip(3)).abs().amax((1, 2, 3)))
    ) < 0.02
    assert shown.shape == x.shape
    assert whole.float().mean() > 0.2  # some crops are the whole image: it, or its mirror image, comes back
    rgb = torch.tensor(rng.random((6, 3, 8, 12))).float()
    for options in ({"randaug": 9.0}, {"erasing": 1.0}):
        made = random_images(Tuning(**options), ((0.0,) * 3, (1.0,) * 3), (3, 8, 12))(rgb)
        assert made.shape == rgb.shape
        assert not torch.allclose(made, rgb, atol=0.01)
    assert random_images(Tuning(), None, (3, 8, 8)) is None


def test_options_on_the_command_line():
    assert parse_tuning("epochs=20,layer_decay=0.75,optimizer=sgd") == {
        "epochs": 20, "layer_decay": 0.75, "optimizer": "sgd"
    }  # fmt: skip
    assert parse_tuning({"ema": 0.9}) == {"ema": 0.9}
    for text, message in (
        ("depth=2", 'tune="depth": fine-tuning has'),
        ("epochs=0", 'tune="epochs=0"; it may be'),
        ("layer_decay=2", "at most 1"),
        ("mixup", 'tune="mixup="'),
    ):
        with pytest.raises(UserError, match=message):
            parse_tuning(text)


def test_recipes_are_whole():
    for name in RECIPES:
        tuning = Tuning.of(name, 10_000)
        assert tuning.lr
        assert tuning.head_lr
    assert Tuning.of("mae", 10_000).lr == pytest.approx(2e-3)
    assert Tuning.of("beit", 10_000).lr == pytest.approx(4e-3)
    assert Tuning.of("mae", 10_000, batch=128).lr == pytest.approx(2.5e-4)
    assert Tuning.of("vit", 100, batch=128).lr == 1e-3  # no rule of the batch there


def test_errors(vit, images):
    x, y, tx, ty = images
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    for model, options, message in (
        (vit, {"recipe": "mae"}, "pass pixels="),
        (vit, {"recipe": "mae", "epochs": 5}, "warmup_epochs=5 of 5"),
        (vit, {"ema": 0.9999}, "ema=0.9999: after 100 steps 99% .* take at most 0.977"),
        (vit, {"depth": 3}, "depth: no option"),
        (vit, {"drop_path": 1.0}, "drop_path=1.0"),
        (flat, {"drop_path": 0.1}, "no transformer blocks"),
        (flat, {"layer_decay": 0.5}, "doesn't say what its layers are"),
    ):
        with pytest.raises(UserError, match=message):
            finetune(model, x, y, tx, ty, **options)
    series = torch.randn(20, 2, 30)
    with pytest.raises(UserError, match="cutmix"):
        finetune(nn.Sequential(nn.Flatten(), nn.Linear(60, 4)), series, y[:20], series, y[:20], cutmix=1.0)

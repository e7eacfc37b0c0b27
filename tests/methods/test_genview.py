"""GenView: base methods unchanged without weights, variants and their cache, weights that find wrong pairs."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from selftaught import methods, networks, objectives
from selftaught.data import open_source
from selftaught.errors import UserError
from selftaught.methods._genview_generators import AutoencoderGenerator, UnCLIPGenerator, learn_autoencoder
from selftaught.methods._genview_variants import WithVariants
from selftaught.networks.token_grids import TokenGrid, _TrunkMap
from tests.harness import Killed, damaged, killing

BASES = ("moco-v3", "simsiam", "byol", "swav", "moco-v2", "simclr")
SMALL: dict[str, Any] = {
    "encoder": "cnn-small", "image_size": 16, "base_preset": "laptop", "augment": "small", "generator": "autoencoder",
    "foreground": "autoencoder", "judge": "autoencoder", "autoencoder_steps": 15, "autoencoder_dim": 16,
}  # fmt: skip


def made(**options: Any) -> Any:
    torch.manual_seed(0)
    return methods.get("genview")(channels=1, samples=64, **SMALL | options)


def batch_of(names: Any, rows: int = 8) -> dict[str, Any]:
    g = torch.Generator().manual_seed(1)
    views = {name: torch.randn(rows, 1, 16, 16, generator=g) for name in names}
    return {"index": torch.arange(rows), **views}


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    source = open_source("digits", split="all")
    return np.stack([source.read(i) for i in range(64)]).repeat(2, 1).repeat(2, 2)


@pytest.fixture
def images(digits: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "digits.npy"
    np.save(path, digits)
    return path


@pytest.mark.parametrize("base", BASES)
def test_without_weights_and_variants_it_is_the_base_method(base: str) -> None:
    method = made(base=base, gamma=0.0, generator="none")
    names = [view.name for view in method.recipe().views]
    batch = batch_of(names)
    inner = copy.deepcopy(method.inner)
    found = method.loss(batch)["loss"]
    wanted = inner.loss({"index": batch["index"], "views": [batch[name] for name in names]})["loss"]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    found.backward()
    wanted.backward()
    pairs = zip(method.inner.parameters(), inner.parameters(), strict=True)
    compared = [(a.grad, b.grad) for a, b in pairs if b.grad is not None]
    assert len(compared) > 4
    for a, b in compared:
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("base", BASES)
def test_weights_reach_the_loss_of_every_base_method(base: str) -> None:
    method = made(base=base, gamma=1.0, generator="none").eval()
    batch = batch_of([view.name for view in method.recipe().views])
    weights = torch.tensor([8.0] + [0.0] * 7)
    method.pair_weights = lambda x1, x2: (weights, {})
    one = method.loss(batch)["loss"]
    weights = torch.ones(8)
    all_alike = method.loss(batch)["loss"]
    assert torch.isfinite(one)
    assert float((one - all_alike).detach().abs()) > 1e-5


def test_one_of_two_views_is_of_the_variant() -> None:
    method = made(prob_gen=0.75)
    batch = batch_of(["view 1", "view 2", "generated 1", "generated 2"], rows=2000)
    for name in list(batch)[1:]:
        batch[name] = torch.full_like(batch[name], float(name.startswith("generated")))
    one, two = (x[:, 0, 0, 0] for x in method.mixed(batch))
    assert int((one + two).max()) == 1, "both views of one sample were of its variant"
    assert float(one.mean()) == pytest.approx(0.375, abs=0.04)
    assert float(two.mean()) == pytest.approx(0.375, abs=0.04)
    assert not any(view.of == "generated" for view in made(prob_gen=0.0).recipe().views)


def test_variants_are_made_once_and_kept(images: Path, tmp_path: Path) -> None:
    method = made(variants=str(tmp_path / "kept"))
    source = method.arranged({"data": open_source(images, split="all")}, method.config)["data"]
    assert np.array_equal(source.sample(3)["generated"], source.read(3)), "before they are made, images stand in"
    before = torch.get_rng_state()
    method.survey({"data": source})
    assert torch.equal(before, torch.get_rng_state()), "training would depend on whether the cache was full"
    files = sorted((tmp_path / "kept").rglob("*.png"))
    times = [file.stat().st_mtime_ns for file in files]
    variant = source.sample(3)["generated"]
    assert (source.with_variant, variant.shape, variant.dtype) == (64, (16, 16, 1), np.uint8)
    assert not np.array_equal(variant, source.read(3))
    levels = {int(file.stem.split("-")[1]) for file in files}
    assert levels <= {0, 100, 200, 300, 400}
    assert len(levels) > 1
    again = made(variants=str(tmp_path / "kept"))
    other = again.arranged({"data": open_source(images, split="all")}, again.config)["data"]
    again.survey({"data": other})
    assert [file.stat().st_mtime_ns for file in files] == times
    assert np.array_equal(other.sample(3)["generated"], variant)
    x1, x2 = (torch.randn(6, 1, 16, 16) for _ in range(2))
    weights, _ = again.pair_weights(x1, x2)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-5)
    assert float(weights.std()) > 1e-4


def test_variants_killed_or_damaged_are_made_again(digits: np.ndarray, tmp_path: Path) -> None:
    """Nothing half-written stays, nothing damaged is read, and what is kept is what an uncut call keeps."""
    np.save(tmp_path / "few.npy", digits[:6])
    options = {"noise_mode": "constant", "noise_level": 300, "gamma": 0.0, "autoencoder_steps": 2}

    def variants() -> list[np.ndarray]:
        method = made(variants=str(tmp_path / "kept"), **options)
        source = method.arranged({"data": open_source(tmp_path / "few.npy", split="all")}, method.config)["data"]
        method.survey({"data": source})
        return [source.sample(i)["generated"] for i in range(6)]

    with killing(None) as passed:
        expected = variants()
    assert passed[0] == 16, "the generator, six variants and their index"
    for moment in (0, 1, 6, 9, 14, 15):
        shutil.rmtree(tmp_path / "kept")
        with pytest.raises(Killed), killing(moment):
            variants()
        assert np.array_equal(variants(), expected), moment
        assert not list((tmp_path / "kept").rglob("*part*")), moment
    shutil.copytree(tmp_path / "kept", tmp_path / "whole")
    picture = next((tmp_path / "whole").rglob("*.png"))
    for path in (picture, *(tmp_path / "whole").rglob("*.npz")):
        for damage in ("gone", "a folder", "half", "one bit", "a word"):
            damaged(tmp_path / "whole", tmp_path / "kept", str(path.relative_to(tmp_path / "whole")), damage)
            assert np.array_equal(variants(), expected), (path.name, damage)


@pytest.mark.parametrize(("noise", "wanted"), [("constant", {300}), ("random", {0, 50, 100, 150, 200})])
def test_levels_that_are_the_same_or_drawn(images: Path, tmp_path: Path, noise: str, wanted: set[int]) -> None:
    method = made(variants=str(tmp_path / "kept"), noise_mode=noise, noise_level=300, noise_step=50, gamma=0.0)
    source = method.arranged({"data": open_source(images, split="all")}, method.config)["data"]
    method.survey({"data": source})
    assert {int(file.stem.split("-")[1]) for file in (tmp_path / "kept").rglob("*.png")} == wanted


def test_the_generator_answers_alike_whatever_the_batch(digits: np.ndarray) -> None:
    x = torch.from_numpy(digits).permute(0, 3, 1, 2)
    network = learn_autoencoder(x, steps=200, dim=32)
    unit = x.float() / 255
    rebuilt = network.decode(network.code(unit), torch.zeros(64, dtype=torch.int64)).detach()
    assert float((rebuilt - unit).square().mean()) < 0.8 * float((unit - unit.mean(0)).square().mean())
    generator = AutoencoderGenerator(network)
    level = torch.tensor([0, 100, 400, 400])
    whole = generator.generate(unit[:4], level, 5)
    torch.testing.assert_close(whole[2:3], generator.generate(unit[2:3], level[2:3], 5))
    assert float((whole - generator.generate(unit[:4], level, 6)).abs()[2].max()) > 1e-3
    moved = [float((whole[k] - rebuilt[k]).abs().mean()) for k in (0, 2)]
    assert moved[0] < moved[1]


def test_ready_variants_are_found_by_name(digits: np.ndarray, tmp_path: Path) -> None:
    import cv2

    for folder, count in (("real", 4), ("ready", 2), ("else", 1)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            name = f"other{i}.png" if folder == "else" else f"{i}.png"
            cv2.imwrite(str(tmp_path / folder / name), digits[i] if folder == "real" else 255 - digits[i])
    kind = methods.get("genview")
    real = open_source(tmp_path / "real", split="all")

    def given(folder: str) -> Any:
        config = kind.config_class(**SMALL | {"generator": str(tmp_path / folder)})
        return kind.arranged({"data": real}, config)["data"]

    source = given("ready")
    assert isinstance(source, WithVariants)
    assert source.with_variant == 2
    np.testing.assert_array_equal(source.sample(1)["generated"], 255 - real.read(1))
    np.testing.assert_array_equal(source.sample(3)["generated"], real.read(3))
    with pytest.raises(UserError, match="no file there is named"):
        given("else")
    with pytest.raises(UserError, match="unclip, autoencoder, none, or a folder"):
        given("nowhere")


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"selftaught\[generate\]"):
        UnCLIPGenerator("somewhere")
    with pytest.raises(UserError, match="predictor=64: simclr has none"):
        made(base="simclr", predictor="64")
    with pytest.raises(UserError, match="base_preset=nothing: byol has imagenet"):
        made(base="byol", base_preset="nothing")
    with pytest.raises(UserError, match="call survey"):
        made().pair_weights(torch.zeros(2, 1, 16, 16), torch.zeros(2, 1, 16, 16))
    with pytest.raises(UserError, match="the images have 4 channels"):
        networks.frozen_tokens("timm:resnet18", 4)
    with pytest.raises(UserError, match="no encoder; give open_clip"):
        networks.frozen_tokens("nothing")


def test_a_convnext_gives_its_last_map_after_the_norm() -> None:
    torch.manual_seed(0)
    trunk = timm.create_model("test_convnext", num_classes=0).eval()
    grid = TokenGrid(_TrunkMap(trunk), [0.5] * 3, [0.25] * 3, side=64).eval()
    x = torch.rand(2, 1, 40, 40)
    tokens, (rows, columns) = grid(x)
    assert tokens.shape == (2, rows * columns, trunk.num_features)
    assert rows == columns == 2
    torch.testing.assert_close(tokens.mean(2), torch.zeros(2, 4), atol=1e-4, rtol=0)


# ---- the sheet's toy: digits on textured backgrounds, three tenths of the pairs wrong ------------------------------
class Pasted:
    """Digits on gratings, each at a place of its own; drawn once, then looked up."""

    def __init__(self, seed: int, digits: int = 1000, each: int = 4) -> None:
        source, rng = open_source("digits", split="all"), np.random.default_rng(seed)
        self.labels, self.each, n = np.asarray(source.labels)[:digits], each, digits * each
        down, across = np.mgrid[:32, :32] / 32
        turn, waves, phase = (rng.uniform(0, top, (n, 1, 1)) for top in (np.pi, 6.0, 6.3))
        grating = np.sin(6.28 * (2 + waves) * (np.cos(turn) * across + np.sin(turn) * down) + phase)
        pictures = rng.uniform(0.1, 0.22, (n, 1, 1)) * (1 + grating)
        for picture, i in zip(pictures, np.repeat(np.arange(digits), each), strict=True):
            y, x = rng.integers(5, 12, 2)
            digit = source.read(int(i))[..., 0].repeat(2, 0).repeat(2, 1) / 255
            picture[y : y + 16, x : x + 16] = np.maximum(picture[y : y + 16, x : x + 16], digit)
        self.pictures = torch.from_numpy(pictures[:, None]).float()

    def of(self, digits: np.ndarray, rng: np.random.Generator) -> Tensor:
        return self.pictures[digits * self.each + rng.integers(0, self.each, len(digits))]

    def pairs(self, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Two pictures of a digit each, with backgrounds of their own; where the third is True, of two digits."""
        first, wrong = rng.integers(0, len(self.labels), n), rng.random(n) < 0.3
        second = np.where(wrong, rng.integers(0, len(self.labels), n), first)
        return self.of(first, rng), self.of(second, rng), torch.from_numpy(wrong)


def small_network() -> nn.Sequential:
    widths, layers = (1, 16, 32, 64), []
    for a, b, stride in zip(widths, widths[1:], (2, 2, 1), strict=False):
        layers += [nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers)


def fitted(network: nn.Module, head: nn.Module, steps: int, lr: float, loss: Any) -> nn.Module:
    optimiser = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(lambda x: head(network(x).mean((2, 3)))).backward()
        optimiser.step()
        rates.step()
    return network.eval()


@pytest.mark.slow
def test_pairs_of_different_things_weigh_less() -> None:
    torch.manual_seed(0)
    seen, rng = Pasted(0), np.random.default_rng(1)

    def classified(out: Any) -> Tensor:
        digits = rng.integers(0, len(seen.labels), 64)
        return cross_entropy(out(seen.of(digits, rng)), torch.from_numpy(seen.labels[digits]).long())

    network = fitted(small_network(), nn.Linear(64, 10), 200, 5e-3, classified)
    judge = networks.TokenGrid(network, [0.0], [1.0]).requires_grad_(False)
    one, two, wrong = seen.pairs(600, rng)
    (t1, grid), (t2, _) = judge(one), judge(two)
    v = objectives.foreground_direction(torch.cat([t1, t2]), grid)
    shown = objectives.foreground_maps(t1, v)[0].mean(0).view(grid)
    assert float(shown[2:-2, 2:-2].mean()) > 2 * float(shown.mean()), "the digits lie in the middle"
    weights = objectives.genview_weights(objectives.genview_quality(t1, t2, v))
    assert float(weights[wrong].mean()) < 0.9 * float(weights[~wrong].mean())

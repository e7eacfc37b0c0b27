"""RRFormer, ERRNet and IBCLN as wired: streams, synthesis, pairs, turns, resume, tiles, judging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import selftaught
from selftaught import methods, objectives, views
from selftaught.data import open_source
from selftaught.engine.loader import DataModule
from selftaught.errors import UserError
from selftaught.run import exporting

SMALL: dict[str, Any] = {"width": 8, "patch": 32, "vgg_weights": "random"}
SWIN = SMALL | {"dim": 8, "blocks": 1, "depth": 2, "heads": 2, "levels": 1, "discriminator_width": 4}
ERR = SMALL | {"dim": 8, "resblocks": 1, "levels": 1, "discriminator_width": 4}
RUN: dict[str, Any] = {"batch_size": 2, "workers": 0, "quiet": True, "loggers": ["none"], "device": "cpu"}
PHOTOS = open_source("photos:whole", split="train")


def first(method: Any, **streams: Any) -> dict[str, Any]:
    streams = streams or {"data": PHOTOS, "reflections": PHOTOS}
    return next(iter(DataModule(streams, method, batch_size=3, workers=0).train_dataloader()))


@pytest.mark.parametrize("recipe", ["perceptual", "ceilnet", "linear"])
def test_pictures_are_blended_of_two_streams_that_never_meet_themselves(recipe: Any) -> None:
    method = methods.RRFormer(**SWIN, recipe=recipe)
    batch = first(method)
    assert (batch["data"]["index"] != batch["reflections"]["index"]).all()
    blended, t, layer = method.blend(batch)
    numbers = {name: batch["data"][f"transmission.{name}"] for name in views.GlassDraw.facts}
    made = views.reflect(t, batch["reflections"]["reflection"], recipe, **numbers)
    assert torch.equal(blended, made.blended)
    assert torch.equal(layer, made.reflection)
    assert blended.shape == (3, 3, 32, 32)
    again = DataModule("photos:whole", method, batch_size=3, workers=0)  # one stream alone: the batch's neighbours
    blended, t, _ = method.blend(next(iter(again.train_dataloader())))
    assert not torch.equal(blended, t)


def test_two_folders_and_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("blended", "transmission", "reflection", "lamps"):
        (tmp_path / name).mkdir()
        for i in range(2 if name == "lamps" else 4):
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), rng.integers(0, 256, (40, 44, 3), dtype=np.uint8))
    kind = methods.get("rrformer")
    lamps, photos = (open_source(str(tmp_path / name), split="all") for name in ("lamps", "transmission"))
    streams = kind.streams(photos, {"reflections": "lamps"}, lambda spec: lamps)
    assert (streams["data"], streams["reflections"]) == (photos, lamps)
    method = methods.RRFormer(**SWIN)
    assert method.blend(first(method, **streams))[0].shape[0] == 3  # fewer lamps than a batch has rows
    pairs = open_source({n: str(tmp_path / n) for n in ("blended", "transmission", "reflection")}, split="all")
    assert kind.streams(pairs, {}, lambda spec: lamps) == {"data": pairs}
    with pytest.raises(UserError, match="reflections"):
        kind.streams(pairs, {"reflections": "lamps"}, lambda spec: lamps)
    batch = first(method, data=pairs)
    blended, t, layer = method.blend(batch)
    assert layer is not None
    i = int(batch["index"][0])
    image = pairs.sample(i)["blended"] / np.float32(255)
    patch = blended[0].permute(1, 2, 0).numpy()
    places = [(y, x) for y in range(9) for x in range(13) if np.allclose(image[y : y + 32, x : x + 32], patch)]
    ((y, x),) = places
    other = pairs.sample(i)["transmission"] / np.float32(255)
    np.testing.assert_allclose(t[0].permute(1, 2, 0).numpy(), other[y : y + 32, x : x + 32], atol=1e-6)


def test_the_terms_are_the_objective_of_its_own_maps() -> None:
    method = methods.RRFormer(**SWIN | {"levels": 2}, final="none")
    batch = first(method)
    blended, t, _ = method.blend(batch)
    assert method.columns is not None
    output = method.net.eval()(blended, method.columns(blended))
    terms = method.loss(batch)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def maps(x: torch.Tensor) -> list[torch.Tensor]:
        found, x = [], (x - mean) / std
        for index, layer in enumerate(method.phi.module.layers):
            x = layer(x)
            found += [x] if index in (1, 6) else []
        return found

    expected = objectives.rrformer(output, t, output_maps=maps(output), target_maps=maps(t))
    assert terms["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-5)
    plain = methods.RRFormer(channels=4, **SWIN, hypercolumn=False, feat_weight=0.0, gan_weight=0.0)
    assert plain.predict({"views": [torch.rand(1, 4, 40, 48)]}).shape == (1, 4, 40, 48)
    assert set(plain.optimisers()) == {"generator"}
    with pytest.raises(UserError, match="hypercolumn=False"):
        methods.RRFormer(channels=4, **SWIN)


def test_the_discriminator_waits_for_its_epoch_and_a_run_resumes_and_applies(tmp_path: Path) -> None:
    options = SWIN | RUN | {"gan_epoch": 1, "steps": 8, "final": "relu"}  # six batches an epoch
    run = selftaught.train("rrformer", "photos:whole", out=str(tmp_path / "run"), **options)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert {"discriminator", "adversarial", "dark"} <= set(rows[0].split(","))
    torch.manual_seed(0)
    start = methods.RRFormer(**SWIN, gan_epoch=1)
    start.plan(8, 6)
    for steps, there in ((5, False), (6, True)):
        start.steps = steps
        assert start.adversarial == there
    loaded = selftaught.load(tmp_path / "run")
    x = torch.rand(1, 3, 50, 40)
    torch.testing.assert_close(loaded.method.predict({"views": [x]}), run.method.eval().predict({"views": [x]}))
    pictures = tmp_path / "in"
    pictures.mkdir()
    image = np.random.default_rng(0).integers(0, 256, (41, 70, 3), dtype=np.uint8)
    cv2.imwrite(str(pictures / "a.png"), image[:, :, ::-1])
    assert run.apply(pictures, tmp_path / "out") == 1
    found = cv2.imread(str(tmp_path / "out" / "a.png"))
    assert found is not None
    unit = torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        wanted = run.method.predict({"views": [unit]})[0].permute(1, 2, 0).numpy()
    assert np.abs(found[:, :, ::-1] / 255 - wanted).max() < 1 / 255


def test_the_relativistic_turn_moves_both_networks_each_by_its_own_loss() -> None:
    method = methods.RRFormer(**SWIN, gan_epoch=0, drop_path=0.0)
    method.plan(2, 2)
    seen: dict[str, Any] = {}

    def minimise(terms: dict[str, Any], optimiser: str) -> dict[str, Any]:
        seen[optimiser] = terms
        return terms

    method.minimise = minimise
    batch = first(method)
    blended, t, _ = method.blend(batch)
    method.step(batch)
    output = method.restored(blended)
    real, fake = method.discriminator(t), method.discriminator(output)
    d = objectives.rrformer_discriminator(real, fake)
    assert seen["discriminator"]["loss"].item() == pytest.approx(0.01 * d.item(), rel=1e-4)
    generator = seen["generator"]
    assert generator["adversarial"].item() == pytest.approx(
        objectives.rrformer_adversarial(real, fake).item(), rel=1e-4
    )
    whole = generator["pixel"] + 0.1 * generator["feature"] + 0.01 * generator["adversarial"]
    assert generator["loss"].item() == pytest.approx(whole.item(), rel=1e-5)
    with torch.no_grad():
        method.net.last.weight.zero_()
        method.net.last.bias.fill_(-1)
    with pytest.raises(UserError, match='final="none"'):
        method.step(batch)


def test_baselines_and_what_is_judged() -> None:
    errnet, ibcln = methods.ERRNet(**ERR), methods.IBCLN(**SMALL | {"width": 2, "gan_weight": 0.0})
    assert type(errnet.net.body[0]).__name__ == "SqueezedResidualBlock"
    for method in (errnet, ibcln):
        batch = first(method)
        terms = method.loss(batch)
        terms["loss"].backward()
        assert torch.isfinite(terms["loss"])
        assert method.predict({"views": [torch.rand(1, 3, 40, 36)]}).shape == (1, 3, 40, 36)
    assert {"pixel", "residual", "reflection", "feature"} <= set(terms)
    for channels in (1, 3):
        clean = open_source("photos:whole", split="test").read(0)[:, :, :channels] / np.float32(255)
        blended, target = errnet.degraded(clean)
        assert blended.shape == clean.shape
        assert target is clean
        assert np.array_equal(blended, errnet.degraded(clean)[0])
        assert 0.01 < np.abs(blended - clean).mean() < 0.5


def _turns(method: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """The terms that each optimiser is given in one step."""
    seen: dict[str, Any] = {}

    def minimise(terms: dict[str, Any], optimiser: str) -> dict[str, Any]:
        seen[optimiser] = terms
        return terms

    method.minimise = minimise
    method.step(batch)
    return seen


def test_ibclns_discriminator_judges_the_last_round_by_least_squares() -> None:
    method = methods.IBCLN(**SMALL | {"width": 2, "discriminator_width": 2, "feat_weight": 0.0})
    method.plan(2, 2)
    batch = first(method)
    seen = _turns(method, batch)
    image, target, _ = method.blend(batch)
    last = method.net.layers(image).transmissions[-1]
    real, fake = method.discriminator(target).detach(), method.discriminator(last).detach()
    judged = float(((real - 1) ** 2).mean() + (fake**2).mean()) / 2
    assert real.shape == (3, 1, 2, 2)
    assert seen["discriminator"]["loss"].item() == pytest.approx(judged)
    content = method.loss(batch)["loss"].detach()
    assert seen["generator"]["loss"].item() == pytest.approx(float(content + 0.01 * ((fake - 1) ** 2).mean()))
    with pytest.raises(UserError, match="gan_weight=0"):
        methods.IBCLN(patch=16)


def test_misaligned_pairs_are_compared_by_the_deepest_maps_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("blended", "transmission"):
        (tmp_path / name).mkdir()
        for i in range(3):
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), rng.integers(0, 256, (40, 44, 3), dtype=np.uint8))
    pairs = open_source({n: str(tmp_path / n) for n in ("blended", "transmission")}, split="all")
    kind = methods.get("errnet")
    streams = kind.streams(PHOTOS, {"misaligned": "pairs"}, lambda spec: pairs)
    assert (streams["data"], streams["misaligned"]) == (PHOTOS, pairs)
    with pytest.raises(UserError, match="transmission_layer"):
        kind.streams(PHOTOS, {"misaligned": "photos"}, lambda spec: PHOTOS)
    method = methods.ERRNet(**ERR, gan_epoch=0)
    method.plan(2, 2)
    batch = first(method, **streams)
    seen = _turns(method, batch)
    shifted, wanted, _ = method.blend(batch["misaligned"])
    blended, target, _ = method.blend(batch)
    made, output = method.restored(shifted), method.restored(blended)
    with torch.no_grad():
        maps = [method.phi_h(2 * x - 1)[0] for x in (made, wanted)]
    assert (maps[0] < 0).any()  # before the activation
    invariant = (maps[0] - maps[1]).abs().mean().item()
    assert seen["generator"]["invariant"].item() == pytest.approx(invariant, rel=1e-4)
    judge = method.discriminator
    fooled = [objectives.rrformer_adversarial(judge(t), judge(o)).item() for o, t in ((made, wanted), (output, target))]
    content = method.content_terms(output, target)["loss"].item()
    assert seen["generator"]["loss"].item() == pytest.approx(content + 0.1 * invariant + 0.01 * sum(fooled), rel=1e-4)
    method.config.aligned = False
    assert set(method.loss(first(method, data=pairs))) == {"loss", "invariant"}


@pytest.mark.slow
def test_it_learns() -> None:
    """The toy of the sheet: on generated pictures, CEILNet's recipe, well above what the input has."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    pictures = []
    for _ in range(24):
        squares = (rows // rng.integers(5, 12) + columns // rng.integers(5, 12)) % 2
        pictures.append(0.15 + 0.5 * squares[..., None] * rng.random(3) + 0.15 * rng.random(3))
    images = torch.from_numpy(np.stack(pictures)).float().permute(0, 3, 1, 2)
    torch.manual_seed(0)
    sizes = {"dim": 16, "width": 16, "blocks": 1, "depth": 2, "heads": 2, "gan_weight": 0.0, "feat_weight": 0.0}
    method = methods.RRFormer(**sizes, hypercolumn=False, final="none")
    made = views.reflect_ceilnet(images, images.roll(5, 0).flip(3), sigma=3.0).blended
    optimiser = torch.optim.Adam(method.net.parameters(), lr=3e-3)
    for k in range(80):
        part = torch.arange(4 * k, 4 * k + 4) % 20
        optimiser.zero_grad()
        terms = method.content_terms(method.restored(made[part]), images[part])
        terms["loss"].backward()
        optimiser.step()
    method.eval()
    with torch.no_grad():
        errors = [(x - images[20:]).square().mean().log10() for x in (method.restored(made[20:]), made[20:])]
    assert 10 * (errors[1] - errors[0]) > 1.5


def test_an_onnx_file_serves_other_sizes(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    network = methods.RRFormer(**SWIN).exported()[0].eval().float()
    card = {"method": "rrformer", "normalise": {}}
    free = {2: ("height", 66, 1 << 14), 3: ("width", 66, 1 << 14)}
    path = exporting._onnx(network, card, tmp_path / "rrformer.onnx", torch.rand(2, 3, 96, 104), free)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for height, width in ((96, 104), (160, 66), (97, 130)):
        x = torch.rand(1, 3, height, width)
        with torch.no_grad():
            expected = network(x)
        assert np.abs(session.run(None, {"input": x.numpy()})[0] - expected.numpy()).max() < 1e-5

"""SRGAN, SRResNet and their baselines as wired: pairs, stages, who learns from what, resume, tiles, judging."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import selftaught
from selftaught import evaluation, methods, views
from selftaught.data import open_source
from selftaught.engine.loader import DataModule
from selftaught.errors import SampleError, UserError
from selftaught.methods.srresnet import matched_scale
from selftaught.networks.perceptual import random_features, run_features
from selftaught.networks.upsampling import BicubicUpsample
from selftaught.run.outputs.image import restore

TINY: dict[str, Any] = {"blocks": 1, "features": 8, "patch": 32, "content": "features"}
GAN = TINY | {"discriminator_width": 4}
RUN: dict[str, Any] = {"batch_size": 4, "workers": 0, "quiet": True, "loggers": ["none"], "device": "cpu"}


def batch(n: int = 2, side: int = 8, channels: int = 3) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    high = torch.rand(n, channels, 4 * side, 4 * side, generator=generator)
    return {"high": high, "low": torch.nn.functional.avg_pool2d(high, 4), "index": torch.arange(n)}


# ---- pairs ---------------------------------------------------------------------------------------------------------
def test_low_is_the_antialiased_bicubic_copy_of_high() -> None:
    method = methods.SRGAN(**GAN)
    data = DataModule("photos:whole", method, batch_size=4, workers=0)
    made = next(iter(data.train_dataloader()))
    assert made["high"].shape == (4, 3, 32, 32)
    assert made["low"].shape == (4, 3, 8, 8)
    torch.testing.assert_close(made["low"], views.bicubic(made["high"], 1 / 4), rtol=0, atol=1e-5)


def test_pairs_that_come_with_the_data_move_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
    for name, images in (("high", low.repeat(2, 1).repeat(2, 2)), ("low", low)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            np.save(tmp_path / name / f"{i}.npy", image)
    method = methods.SRResNet(**TINY | {"scale": 2, "patch": 16})
    source = open_source({"high": str(tmp_path / "high"), "low": str(tmp_path / "low")}, split="all")
    data = DataModule(source, method, batch_size=3, workers=0)
    for made in data.train_dataloader():
        repeated = made["low"].repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert torch.equal(made["high"], repeated)
    with pytest.raises(UserError, match="scale=4"):
        methods.SRResNet(**TINY).pair({"low": torch.zeros(1, 3, 8, 8), "high": torch.zeros(1, 3, 16, 16)})


# ---- losses --------------------------------------------------------------------------------------------------------
def test_generator_terms_by_hand() -> None:
    method = methods.SRGAN(**GAN, adv_weight=0.25, feature_scale=0.5).eval()
    made = batch()
    target, generated = 2 * made["high"] - 1, method.generator(made["low"])
    terms = method.generator_terms(target, generated)
    (phi_x,), (phi_g,) = method.perceptual(target), method.perceptual(generated)
    content = (0.25 * (phi_x - phi_g) ** 2).sum((1, 2, 3)).div(phi_x[0, 0].numel()).mean()
    adversarial = -torch.log(torch.sigmoid(method.discriminator(generated))).mean()
    assert terms["content"].item() == pytest.approx(content.item(), rel=1e-4)
    assert terms["loss"].item() == pytest.approx((content + 0.25 * adversarial).item(), rel=1e-4)


def test_the_first_stage_and_srresnet_have_the_squared_error_on_minus_one_to_one() -> None:
    made = batch()
    gan, net = methods.SRGAN(**GAN), methods.SRResNet(**TINY | {"content": "mse"})
    net.load_state_dict({k: v for k, v in gan.state_dict().items() if not k.startswith("discriminator")})
    expected = (net.generator(made["low"]) - (2 * made["high"] - 1)).square().mean().item()
    assert net.loss(made)["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert gan.loss(made)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_total_variation_is_added() -> None:
    made = batch()
    method = methods.SRResNet(**TINY | {"content": "mse"}, tv_weight=0.5).eval()
    terms = method.loss(made)
    assert terms["loss"].item() == pytest.approx((terms["content"] + 0.5 * terms["variation"]).item(), rel=1e-6)


def test_features_of_other_weights_are_brought_to_the_size_of_the_squared_error() -> None:
    phi = random_features()
    scale = matched_scale(phi, 3)
    assert scale == matched_scale(random_features(), 3)
    source = open_source("photos:whole", split="test")
    for i in range(len(source)):
        x = torch.from_numpy(source.read(i)[:96, :96].copy()).permute(2, 0, 1)[None] / 127.5 - 1
        g = BicubicUpsample(4)(views.bicubic(x, 1 / 4))
        ratio = scale**2 * (phi(x)[0] - phi(g)[0]).square().sum(1).mean() / (x - g).square().mean()
        assert 0.3 < ratio < 3


def test_vgg_refuses_channels_that_it_cannot_see() -> None:
    with pytest.raises(UserError, match='content="vgg54"'):
        methods.SRGAN(channels=4, **GAN | {"content": "vgg54"})
    assert methods.SRGAN(channels=4, **GAN).predict({"views": [torch.rand(1, 4, 8, 8)]}).shape == (1, 4, 32, 32)


# ---- learning ------------------------------------------------------------------------------------------------------
def test_who_learns_in_which_stage_and_who_is_counted_once(tmp_path: Path) -> None:
    run = selftaught.train(
        "srgan", "photos:whole", out=str(tmp_path / "run"), pretrain_steps=2, steps=3, norm="bn", **RUN, **GAN
    )
    first = torch.load(tmp_path / "run/stages/pretrain/checkpoints/pretrain.ckpt", weights_only=True)
    last = torch.load(tmp_path / "run/stages/gan/checkpoints/gan.ckpt", weights_only=True)
    untrained = methods.get("srgan")(run.config["options"] and run.method.config)
    assert first["selftaught"]["steps"] == 2
    assert last["selftaught"]["steps"] == 3
    fresh = copy.deepcopy(untrained.state_dict())
    before, after = first["state_dict"], last["state_dict"]
    assert before.keys() == after.keys() == fresh.keys()
    assert not any("perceptual" in name for name in after)
    counters = [name for name in after if name.startswith("generator") and name.endswith("num_batches_tracked")]
    assert counters
    assert all(before[name] == 2 and after[name] == 5 for name in counters)
    weights = [name for name in after if name.endswith("weight")]
    assert all(not torch.equal(before[name], after[name]) for name in weights)
    seen = [name for name in after if name.startswith("discriminator") and name.endswith("num_batches_tracked")]
    assert all(before[name] == 0 and after[name] == 9 for name in seen)  # real, generated, and in G's turn
    assert last["frozen"]["name"] == "three convolutions with random weights"


def test_gradients_of_a_turn_reach_its_own_network_alone(tmp_path: Path) -> None:
    moved: dict[str, tuple[bool, bool]] = {}

    class Watched(methods.get("srgan")):  # type: ignore[misc]
        def minimise(self, terms: Any, optimiser: Any = None) -> Any:
            before = copy.deepcopy(self.generator.state_dict()), copy.deepcopy(self.discriminator.state_dict())
            found = super().minimise(terms, optimiser)
            nets = (self.generator, self.discriminator)
            moved[optimiser] = tuple(
                any(not torch.equal(p, old[name]) for name, p in net.named_parameters())
                for net, old in zip(nets, before, strict=True)
            )
            return found

    import lightning

    method = Watched(**GAN, pretrain_steps=0)
    data = DataModule("photos:whole", method, batch_size=4, workers=0)
    trainer = lightning.Trainer(
        max_steps=-1, max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(method, datamodule=data)
    assert moved == {"discriminator": (False, True), "generator": (True, False)}


def test_without_adversarial_weight_there_is_no_discriminator(tmp_path: Path) -> None:
    options = {"pretrain_steps": 0, "steps": 2, "adv_weight": 0.0}
    run = selftaught.train("srgan", "photos:whole", out=str(tmp_path / "run"), **options, **RUN, **GAN)
    assert not hasattr(run.method, "discriminator")
    assert run.method.stages == ("gan",)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pretrain", "gan"])
def test_a_cut_run_goes_on_to_the_same_weights(stage: str, tmp_path: Path) -> None:
    options = RUN | GAN | {"pretrain_steps": 5, "steps": 5, "checkpoint_steps": 2, "norm": "bn"}
    whole = selftaught.train("srgan", "photos:whole", out=str(tmp_path / "whole"), **options).method
    kind = methods.get("srgan")
    after = kind.after_step

    def power_cut(self: Any) -> None:
        after(self)
        if self.stage == stage and self.steps == 3:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "after_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train("srgan", "photos:whole", out=str(tmp_path / "cut"), **options)
    cut = selftaught.train("srgan", resume=tmp_path / "cut", quiet=True).method
    for name, weight in whole.deliverable().state_dict().items():
        assert torch.equal(cut.deliverable().state_dict()[name], weight), name
    first, second = (
        torch.load(tmp_path / name / "stages/gan/checkpoints/gan.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_cannot_go_on_with_other_features() -> None:
    method = methods.SRGAN(**GAN)
    saved: dict[str, Any] = {}
    _ = method.perceptual
    method.on_save_checkpoint(saved)
    methods.SRGAN(**GAN).on_load_checkpoint(saved)
    with pytest.raises(UserError, match="began with the features of three convolutions"):
        methods.SRGAN(**GAN | {"content": "vgg22"}, vgg_weights="random").on_load_checkpoint(saved)


def test_features_of_a_run_of_ones_own(tmp_path: Path) -> None:
    options = {"encoder": "resnet10-narrow", "image_size": 32, "augment": "small", "steps": 2, "knn_every": 0.0}
    run = selftaught.train("simclr", "photos", out=str(tmp_path / "run"), **RUN | options)
    frozen = run_features(tmp_path / "run")
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = run.method.eval().encoder.maps(run.method.normalise(image))
        torch.testing.assert_close(frozen(2 * image - 1)[0], expected, rtol=1e-3, atol=1e-4)
    method = methods.SRResNet(**TINY, feature_network=str(tmp_path / "run"))
    assert method.loss(batch())["loss"].item() > 0
    with pytest.raises(UserError, match="no finished run"):
        run_features(tmp_path)
    with pytest.raises(UserError, match="3 channels, the images have 5"):
        run_features(tmp_path / "run", channels=5)


@pytest.mark.slow
def test_srresnet_beats_bicubic_and_srgan_makes_it_sharper(tmp_path: Path) -> None:
    """The sheet's toys 4 and 5: 0.2 dB over bicubic on the luma; then more fine detail at a lower PSNR."""
    small = RUN | {"preset": "laptop", "batch_size": 8, "features": 12, "blocks": 2}
    first = selftaught.train("srresnet", "photos:whole", out=str(tmp_path / "first"), steps=105, **small)
    found = first.evaluate(limit=2)["restoration"]
    assert found["this"]["psnr"].mean > found["raw"]["psnr"].mean + 0.2
    options = {"content": "features", "pretrain_steps": 0, "steps": 25, "init": str(tmp_path / "first"), "lr": 1e-3}
    second = selftaught.train("srgan", "photos:whole", out=str(tmp_path / "second"), **small | options)
    sharper = second.evaluate(limit=2)["restoration"]
    assert sharper["this"]["sharpness"].mean > 1.2 * found["this"]["sharpness"].mean
    assert sharper["this"]["psnr"].mean < found["this"]["psnr"].mean


# ---- what is delivered ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("slug", ["srgan", "srresnet", "srcnn", "espcn", "bicubic"])
def test_tiles_leave_no_seam_and_sizes_are_multiplied(slug: str) -> None:
    kind = methods.get(slug)
    method = kind(**(TINY if slug == "srresnet" else GAN if slug == "srgan" else {})).eval()
    image = np.random.default_rng(0).random((67, 45, 3), dtype=np.float32)
    whole, tiled = restore(method, image, tile=0), restore(method, image, tile=48)
    assert whole.shape == (268, 180, 3)
    assert np.abs(whole - tiled).max() < 1e-4  # a grey level is 4e-3
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert restore(method, image[:1, :2]).shape == (4, 8, 3)


def test_bicubic_is_the_views_own() -> None:
    image = np.random.default_rng(0).random((13, 9, 3), dtype=np.float32)
    method = methods.Bicubic(scale=3)
    expected = np.clip(views.bicubic(image, 3.0), 0, 1)
    np.testing.assert_allclose(restore(method, image), expected, atol=1e-5)
    np.testing.assert_allclose(method.simplest(image), expected, atol=1e-6)


def test_test_images_are_cropped_made_small_and_judged_on_their_luma() -> None:
    method = methods.SRResNet(**TINY)
    clean = np.random.default_rng(0).random((43, 50, 3), dtype=np.float32)
    low, target = method.degraded(clean)
    assert low.shape == (10, 12, 3)
    np.testing.assert_array_equal(target, clean[:40, :48])
    np.testing.assert_array_equal(low * 255, np.rint(low * 255))
    assert method.judged() == {"channel": "y", "shave": 4}
    assert methods.SRResNet(channels=4, **TINY).judged()["channel"] == "rgb"
    with pytest.raises(SampleError, match="too few"):
        method.degraded(clean[:8])


def test_luma_psnr_of_a_constant_offset() -> None:
    """The sheet's check 3: an offset of d grey levels in RGB is one of d * 219 / 255 in Y."""
    clean, d = np.random.default_rng(0).integers(20, 200, (40, 40, 3)).astype(np.float64), 10
    found = evaluation.restoration([clean + d], [clean], channel="y", shave=4)
    assert found["psnr"].mean == pytest.approx(20 * np.log10(255 / (d * 219 / 255)), abs=1e-9)


@pytest.mark.parametrize(
    ("slug", "options"),
    [
        ("srresnet", {"scale": 3}),
        ("srgan", {"pretrain_steps": -1}),
        ("srcnn", {"second_kernel": 2}),
        ("espcn", {"scale": 0}),
    ],
)
def test_errors(slug: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        methods.get(slug)(**options)


def test_a_patch_that_the_scale_does_not_divide() -> None:
    with pytest.raises(UserError, match="patch=30"):
        methods.SRResNet(patch=30).recipe()

"""DADeblur as wired: windows, stages, pairs of sharp places, adaptation of sets and of single videos, the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import selftaught
from selftaught import methods, objectives
from selftaught.data import open_source
from selftaught.data.exposures import Exposures
from selftaught.engine.loader import DataModule
from selftaught.errors import UserError
from selftaught.methods import _dadeblur_pairs as blurring

DATA = "pans?train=6&test=2&frames=60&side=48&direction=vertical"
OTHER = "pans?train=1&test=1&frames=60&side=48&direction=vertical&speed=2"
TINY: dict[str, Any] = {
    "network": "frame-stack", "width": 4, "blocks": 2, "exposure": 3, "patch": 32, "magnitude_encoder": "small",
    "magnitude_widths": "4-4-4-4-4", "magnitude_fusion": 4, "magnitude_blocks": 1, "longest": 10.0,
    "blur_model": "linear", "magnitude_offset": 2.0, "adapt_patch": 32, "adapt_epochs": 2,
}  # fmt: skip
DIFFUSION = TINY | {
    "network": "estrnn", "blocks": 1, "blur_model": "diffusion", "blur_base": 4, "blur_multipliers": "1-2",
    "diffusion_steps": 40, "sampling_steps": 4,
}  # fmt: skip
RUN: dict[str, Any] = {"batch_size": 4, "workers": 0, "quiet": True, "loggers": ["none"], "device": "cpu"}


def batch_of(method: methods.DADeblur, data: Any = DATA) -> dict[str, Any]:
    made = next(iter(DataModule(data, method, batch_size=4, workers=0).train_dataloader()))
    return dict(made.get("data", made))


def exposed(source: Any = DATA) -> Any:
    source = open_source(source, modality="clip", split="test") if isinstance(source, str) else source
    return Exposures(source, exposure=3, step=3)


def test_windows_are_averages_and_their_motion_is_known() -> None:
    method = methods.DADeblur(**TINY, turn=False)
    method.enter_stage("deblur")
    made = batch_of(method)
    blurred, sharp, exposure = method.window(made)
    frames = made["frames"]
    assert frames.shape == (4, 3, 15, 32, 32)
    for t in range(5):
        torch.testing.assert_close(blurred[:, :, t], frames[:, :, 3 * t : 3 * t + 3].mean(2))
    assert torch.equal(sharp, frames[:, :, 7])
    assert torch.equal(exposure, frames[:, :, 6:9])
    flow = method.motion(exposure)
    assert flow[:, 1].abs().mean() > 5 * flow[:, 0].abs().mean()  # up and down alone
    assert method.loss(made)["loss"].item() == pytest.approx(
        (blurred[:, :, 2] - sharp).square().mean().item(), rel=1e-4
    )


def test_every_stage_of_every_network_has_a_loss_that_trains_its_part_alone() -> None:
    for options in (TINY, DIFFUSION, DIFFUSION | {"network": "mmp-rnn"}):
        method = methods.DADeblur(**options)
        assert method.stages == (("magnitude", "deblur") if options is TINY else ("magnitude", "deblur", "blur"))
        for stage in method.stages:
            method.enter_stage(stage)
            method.zero_grad()
            method.loss(batch_of(method))["loss"].backward()
            method.optimisers()
            moved = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
            trained = {id(p) for p in method.trained_modules().parameters()}
            assert moved
            assert moved <= {name for name, p in method.named_parameters() if id(p) in trained}


def test_given_pairs_are_learnt_from(tmp_path: Path) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (2, 6, 40, 44, 3), dtype=np.uint8)
    for name, shift in (("blurred", 1), ("sharp", 0)):
        for k, clip in enumerate(clips):
            (tmp_path / name / str(k)).mkdir(parents=True)
            for t, frame in enumerate(clip):
                cv2.imwrite(str(tmp_path / name / str(k) / f"{t:03d}.png"), np.roll(frame, shift, 1)[:, :, ::-1])
    source = open_source({n: str(tmp_path / n) for n in ("blurred", "sharp")}, modality="clip", split="all")
    method = methods.DADeblur(**TINY)
    blurred, sharp, exposure = method.window(batch_of(method, source))
    assert blurred.shape == (4, 3, 5, 32, 32)
    assert exposure.shape[2] == 3
    assert torch.equal(exposure[:, :, 1], sharp)
    assert method.to_judge(source) is source
    assert np.isfinite(method.motion(exposure).numpy()).all()


def test_clips_that_are_too_short_are_named() -> None:
    with pytest.raises(UserError, match="no clip has the 60 frames"):
        methods.DADeblur.arranged({"data": open_source("motion?train=2&test=1&frames=20", split="train")},
                                  methods.DADeblur(**TINY | {"exposure": 12}).config)  # fmt: skip


# ---- adaptation --------------------------------------------------------------------------------------------------
def told(source: Any, i: int) -> torch.Tensor:
    """The truth in place of an estimator: shares of the longest blur."""
    inner = source.source
    number = int(inner.indices[i]) if hasattr(inner, "indices") else i
    _, corners = getattr(inner, "parent", inner).path(number)
    steps = np.abs(np.diff(corners, axis=0)).sum(1)
    found = [steps[3 * t : 3 * t + 2].sum() * 1.5 / 10 for t in range(source.frames(i))]
    return torch.tensor(found).float().view(-1, 1, 1).expand(-1, 48, 48).contiguous()


def test_pairs_blur_the_middle_alone_along_the_motion() -> None:
    source = exposed("pans?train=1&test=2&frames=98&side=48&direction=vertical&speed=2&rest=4")
    method = methods.DADeblur(**TINY)
    frames = torch.from_numpy(source.read(0)).permute(0, 3, 1, 2) / 255
    shares = told(source, 0)
    blurrer = blurring.Blurrer(method.config, None, torch.Generator().manual_seed(0))
    pairs, regions = blurring.sharp_pairs(frames, shares, blurrer, "cpu")
    assert 0 < len(pairs) <= 10
    assert len(pairs) == len(regions)
    chosen = [region.frame for region in regions]
    assert shares[chosen].mean() < 0.7 * shares.mean()
    for pair, region in zip(pairs, regions, strict=True):
        t, (top, left, bottom, right) = region
        window = frames[t - 2 : t + 3, :, top:bottom, left:right].transpose(0, 1)
        torch.testing.assert_close(pair.target.float(), window[:, 2], atol=1e-3, rtol=0)
        others = [0, 1, 3, 4]
        torch.testing.assert_close(pair.window[:, others].float(), window[:, others], atol=1e-3, rtol=0)
        made = pair.window[:, 2].float()
        steps = [(made.diff(dim=d).abs().mean() / window[:, 2].diff(dim=d).abs().mean()).item() for d in (1, 2)]
        assert steps[0] < steps[1]  # less is left of what changes from row to row
    assert min(pair.target.shape[1] for pair in pairs) >= blurring.smallest_box(256, 48, 48) == 26


def test_a_sharp_place_is_blurred_as_the_camera_would_have() -> None:
    """Neither shifted nor brighter: told direction and length, the new blur is the mean of the exposure's frames."""
    options = "pans?train=1&test=2&frames=98&side=48&rest=0&direction=vertical"
    free, held = (open_source(f"{options}&hold={hold}", modality="clip", split="test") for hold in (0, 7))
    blurrer = blurring.Blurrer(methods.DADeblur(**TINY | {"magnitude_offset": 0.0}).config, None, torch.Generator())
    for i in range(2):
        one, other = (Exposures(source, exposure=7, step=7).sample(i) for source in (free, held))
        seen, camera = (torch.from_numpy(x["blurred"]).permute(0, 3, 1, 2) / 255 for x in (other, one))
        sharp = [t for t in range(3, 11) if np.array_equal(other["blurred"][t], other["sharp"][t])]
        assert sharp
        for t in sharp:
            made = blurrer.blurred(seen[t : t + 1], blurrer.direction(seen, t), torch.full((1, 48, 48), 6.0))[0]
            inner = slice(8, -8)
            error = (made - camera[t])[:, inner, inner].square().mean()
            assert error < 0.1 * (seen[t] - camera[t])[:, inner, inner].square().mean()
            assert abs(made.mean() - seen[t].mean()) < 0.01


def test_wrong_random_and_diffused_blurs() -> None:
    source = exposed()
    frames = torch.from_numpy(source.read(0)).permute(0, 3, 1, 2) / 255
    shares = told(source, 0)
    right = blurring.Blurrer(methods.DADeblur(**TINY).config, None, torch.Generator()).direction(frames, 5)
    across = blurring.Blurrer(methods.DADeblur(**TINY, orientation="across").config, None, torch.Generator())
    assert (right * across.direction(frames, 5)).sum(1).abs().max() < 1e-6
    random = methods.DADeblur(**TINY, orientation="random", magnitude="random").config
    one = blurring.Blurrer(random, None, torch.Generator().manual_seed(0))
    assert one.direction(frames, 5).norm(dim=1).allclose(torch.ones(1))
    assert one.strengths(shares).min() >= 2.0
    method = methods.DADeblur(**DIFFUSION)
    blurrer = blurring.Blurrer(method.config, method.diffusion, torch.Generator().manual_seed(0))
    with torch.no_grad():
        made = blurrer.blurred(frames[:1, :, :31, :29], right[..., :31, :29], torch.full((1, 31, 29), 3.0))
    assert made.shape == (1, 3, 31, 29)
    assert 0 <= made.min() <= made.max() <= 1


def test_patches_take_their_blur_along() -> None:
    x = torch.arange(36.0).view(1, 6, 6)
    told_ = torch.stack((torch.ones(6, 6), torch.zeros(6, 6), torch.full((6, 6), 2.0)))
    pair = blurring.Pair(x[:, None].expand(1, 5, 6, 6), x, told_)
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(40):
        window, target, condition = blurring.patch(pair, 4, turn=True, generator=generator)
        assert condition is not None
        assert torch.equal(window[:, 2], target)
        u, v, m = condition[:, 0, 0].tolist()
        step = target[0, 1, 1] - target[0, 1, 0] if abs(u) == 1 else target[0, 1, 1] - target[0, 0, 1]
        assert step.item() == (u if abs(u) == 1 else v)  # the direction of the rising numbers
        assert m == 2
        seen.add((u, v))
    assert len(seen) == 4


@pytest.mark.slow
def test_the_right_blur_adapts_better_than_the_wrong_one() -> None:
    source = exposed("pans?train=1&test=4&frames=98&side=48&direction=vertical&speed=2&rest=8")
    found = {}
    for orientation in ("flow", "across"):
        torch.manual_seed(0)
        options = TINY | {"width": 12, "blocks": 3, "adapt_epochs": 25, "adapt_lr": 5e-4, "magnitude_offset": 0.0}
        method = methods.DADeblur(**options, orientation=orientation)
        blurrer = blurring.Blurrer(method.config, None, torch.Generator().manual_seed(0))
        pairs, errors = [], []
        for i in range(len(source)):
            frames = torch.from_numpy(source.read(i)).permute(0, 3, 1, 2) / 255
            pairs += blurring.sharp_pairs(frames, told(source, i), blurrer, "cpu")[0]
        losses = method.learn(pairs)
        assert np.mean(losses[-5:]) < np.mean(losses[:5])
        for i in range(len(source)):
            sample = source.sample(i)
            clip, clean = (torch.from_numpy(sample[n]).permute(3, 0, 1, 2)[None] / 255 for n in ("blurred", "sharp"))
            with torch.no_grad():
                errors.append((method.deliverable()(clip) - clean)[:, :, 2:-2].square().mean().item())
        found[orientation] = np.mean(errors)
    assert found["flow"] < found["across"]


# ---- as a run ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("dadeblur") / "run"
    return selftaught.train("dadeblur", DATA, out=str(out), steps=4, **TINY, **RUN)


def test_a_run_judges_applies_and_adapts(run: Any, tmp_path: Path) -> None:
    plain = run.evaluate(limit=32)["restoration"]["this"].numbers["psnr"].mean
    adapted = run.evaluate(limit=32, adapt=True)["restoration"]["this"]
    assert np.isfinite(plain)
    assert "adapted" in adapted.note
    assert run.evaluate(limit=32)["restoration"]["this"].numbers["psnr"].mean == plain  # the run stays as it is
    assert "source_psnr" not in adapted.numbers  # these are its own data
    other = run.evaluate(data=OTHER, limit=32, adapt=True)["restoration"]["this"]
    assert other["source_psnr_before"].mean == pytest.approx(plain, abs=1e-6)
    assert other["source_psnr"].mean != pytest.approx(plain, abs=1e-6)
    assert f"{other['source_psnr'].mean:.2f} dB after" in other.note
    blurry = exposed()
    for i in range(2):
        (tmp_path / "in" / f"v{i}").mkdir(parents=True)
        for t, frame in enumerate(blurry.read(i)):
            cv2.imwrite(str(tmp_path / "in" / f"v{i}" / f"{t:03d}.png"), frame[:, :, ::-1])
    alike = run.evaluate(data=tmp_path / "in", clean=tmp_path / "in", limit=16)["restoration"]
    assert alike["raw"]["psnr"].mean == 100  # blurred ones, of which the clean ones are known, are not blurred again
    for name, adapt in (("plain", False), ("adapted", True)):
        assert run.apply(tmp_path / "in", tmp_path / name, adapt=adapt) == 2
    one, other = (cv2.imread(str(tmp_path / name / "v0" / "005.png")) for name in ("plain", "adapted"))
    assert one.shape == other.shape == (48, 48, 3)
    assert not np.array_equal(one, other)


def test_each_video_can_have_its_own_adaptation(run: Any) -> None:
    method = run._load()
    method.eval()
    before = {key: value.clone() for key, value in method.deblurrer.state_dict().items()}
    source = exposed()
    method.adapt(source, per="video")
    assert all(torch.equal(value, before[key]) for key, value in method.deblurrer.state_dict().items())
    seen = []
    for i in (0, 1, 0):
        method.face(source, i)
        seen.append(torch.cat([p.detach().flatten() for p in method.deblurrer.parameters()]))
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert len(method.adapted) == 3


def test_adapting_in_the_wrong_way_is_refused(run: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='adapt="frame": it may be set or video'):
        run.apply(DATA, tmp_path / "out", adapt="frame")


def test_meta_transfer_restores_after_a_step() -> None:
    method = methods.DADeblur(**TINY, meta=True, meta_lr=0.5)
    method.enter_stage("deblur")
    with torch.no_grad():
        method.deblurrer.layers[-1].weight.normal_(0, 0.05)
    made = batch_of(method)
    blurred, sharp, exposure = method.window(made)
    stepped = method.restore_after_a_step(blurred, method.motion(exposure))
    assert not torch.allclose(stepped, method.restore(blurred))
    terms = method.loss(made)
    assert terms["loss"].item() == pytest.approx((stepped - sharp + 0.5).square().mean().item(), rel=1e-5)
    terms["loss"].backward()
    assert all(p.grad is not None for p in method.deblurrer.parameters())


def test_the_loss_of_blurring_again() -> None:
    method = methods.DADeblur(**TINY, adaptation="reblur")
    pairs = method.pairs(exposed(), 0)
    assert len(pairs) == 4
    assert all(pair.condition is not None for pair in pairs)
    losses = method.learn(pairs)
    assert len(losses) == 2
    assert np.isfinite(losses).all()


def test_videos_without_a_sharp_place_are_refused_in_one_line(run: Any) -> None:
    method = run._load()
    method.config.min_box = 10_000
    short = open_source("motion?train=2&test=1&frames=5", modality="clip", split="test")
    with pytest.raises(UserError, match="adapt: motion has no video of 7 frames"):
        method.adapt(short)
    with pytest.raises(UserError, match="magnitude_widths"):
        methods.DADeblur(**TINY | {"magnitude_widths": "4-4"})


def test_restored_clips_keep_their_size_and_range() -> None:
    method = methods.DADeblur(**DIFFUSION)
    with torch.no_grad():
        made = method.deliverable()(torch.rand(1, 3, 2, 13, 18))
    assert made.shape == (1, 3, 2, 13, 18)
    assert 0 <= made.min() <= made.max() <= 1
    assert objectives.dadeblur(made, made).item() <= 0.25

"""DISCOVR as wired: its loss is the formula of its own outputs, teachers move before the step, videos give vectors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import selftaught
from selftaught import methods
from selftaught.engine.batches import stack_views
from selftaught.errors import UserError
from selftaught.networks import build
from selftaught.networks.tokens import keep_from_mask, visible_first
from selftaught.objectives.discovr import discovr_terms
from tests.methods.resuming import cut_and_whole

TINY = {
    "encoder": "vit-nano-video", "frames": 4, "stride": 1, "image_size": 16, "patch": 4, "image_depth": 1,
    "head": "24-12", "outputs": 20, "decoder": "16-1-2", "prototypes": 8, "mask_ratio": 0.5, "local_mask_ratio": 0.5,
    "local_views": 2, "image_views": 2,
}  # fmt: skip
ALONE = {"video_weight": 0.0, "image_weight": 0.0}
QUICK = {"steps": 3, "batch_size": 6, "workers": 0, "quiet": True, "knn_every": 0, "loggers": ["none"]}


def batch_for(method, n: int = 3, seed: int = 0) -> dict:
    """Clips of noise under the method's own recipe, as the loader makes them."""
    rng, recipe = np.random.default_rng(seed), method.recipe()
    clips = [rng.integers(0, 256, (7, 20, 24, method.channels), dtype=np.uint8) for _ in range(n)]
    rows = [recipe.render({"clip": clip}, recipe.sample(rng, {"clip": clip.shape})) for clip in clips]
    return method.on_after_batch_transfer({"index": torch.arange(n)} | stack_views(rows, recipe))


def stirred(**options):
    """A method whose teachers, centres and prototypes have left their start."""
    torch.manual_seed(0)
    method = methods.DISCOVR(channels=1, **TINY | options)
    with torch.no_grad():
        for name in ("video_teacher", "image_teacher"):
            for p in getattr(method, name, torch.nn.Identity()).parameters():
                p.add_(0.05 * torch.randn_like(p))
        for name in ("video_center", "image_center"):
            if hasattr(method, name):
                getattr(method, name).normal_(std=0.05)
    return method


@pytest.mark.parametrize("options", [{}, {"pairing": "official", "center_input": "probs", "official_scale": True}])
def test_the_loss_is_the_formula_of_its_own_outputs(options: dict) -> None:
    method = stirred(scd_weight=0.5, video_weight=2.0, teacher_temperature_start=0.06, **options)
    batch, c = batch_for(method), method.config
    clip = batch["clip"]
    assert clip.shape == (3, 1, 4, 16, 16)
    assert batch["clip.mask"].shape == (3, 1, 32)
    assert batch["clip.local"].shape == (3, 2, 32)
    centers = {name: getattr(method, name).clone() for name in ("video_center", "image_center")}
    frames = clip.transpose(1, 2).flatten(0, 1)
    with torch.no_grad():
        torch.manual_seed(7)
        seen = torch.rand(2 * len(frames), 16).topk(8, dim=1, largest=False).indices.sort(dim=1).values
        encoder, head = method.image_teacher.average
        whole, tokens = encoder.tokens(frames)
        image_student = method.image_head(method.frame_encoder.tokens(frames, seen)[0])
        image_teacher = head(whole)
        views = [keep_from_mask(batch["clip.local"][:, m]) for m in range(2)]
        video_student = method.video_head(torch.cat([method.encoder.tokens(clip, keep)[0] for keep in views]))
        copy = method.video_teacher.average
        video_teacher = copy[1](copy[0](clip))
        keep = keep_from_mask(batch["clip.mask"][:, 0])
        filled = method.decoder(method.encoder.tokens(clip, keep)[1], keep)
        if c.pairing == "official":
            order = visible_first(keep, 32)
            filled = torch.stack([row[places] for row, places in zip(filled, order, strict=True)])
        expected = discovr_terms(
            filled, tokens.unflatten(0, (3, 4)), method.prototypes.weight,
            video_student.unflatten(0, (2, 3)), video_teacher, image_student.unflatten(0, (2, 12)), image_teacher,
            weights=(0.5, 2.0, 1.0), **centers, teacher_temperature=0.06, pairing=c.pairing,
            official_scale=c.official_scale,
        )  # fmt: skip
    torch.manual_seed(7)
    terms = method.loss(batch)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5), name
    terms["loss"].backward()
    for name, teacher in (("video_center", video_teacher), ("image_center", image_teacher)):
        p = ((teacher - centers[name]) / 0.06).softmax(1) if c.center_input == "probs" else teacher
        assert torch.allclose(getattr(method, name), 0.9 * centers[name] + 0.1 * p.mean(0), atol=1e-5)


def test_who_learns_from_what() -> None:
    """Teachers never; the image branch from its own term alone; decoder and prototypes from the clusters alone."""
    method = stirred()
    method.loss(batch_for(method))["loss"].backward()
    teachers = [*method.video_teacher.parameters(), *method.image_teacher.parameters()]
    assert all(p.grad is None for p in teachers)
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    without = stirred(image_weight=0.0)
    without.loss(batch_for(without))["loss"].backward()
    assert all(p.grad is None for p in [*without.frame_encoder.parameters(), *without.image_head.parameters()])
    assert without.prototypes.weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in without.parameters() if p.requires_grad)


def test_teachers_start_as_copies_and_move_before_the_step() -> None:
    method = methods.DISCOVR(channels=1, target_decay=0.75, **TINY)
    student, teacher = method.encoder.blocks[0].attn.qkv.weight, method.video_teacher.average[0].blocks[0].attn.qkv
    assert torch.equal(student, teacher.weight)
    before = student.detach().clone()
    with torch.no_grad():
        student.add_(1.0)
    method.after_step()
    assert torch.equal(teacher.weight, before)
    method.before_step()
    assert torch.allclose(teacher.weight, before + 0.25)


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({"target": "pixels"} | ALONE, {"scd"}),
        ({"target": "mlp"} | ALONE, {"scd", "used_prototypes"}),
        ({"scd_weight": 0.0, "image_weight": 0.0}, {"video", "video_entropy"}),
        ({"scd_weight": 0.0, "video_weight": 0.0}, {"image", "image_entropy"}),
        ({"mask": "region"}, {"scd", "video", "image"}),
        ({"class_token": False, "mask": "random", "augment": "resize"}, {"scd", "video", "image"}),
    ],
)
def test_baselines_and_variants_train_all_they_have_and_deliver_an_encoder_that_can_be_built_again(
    options: dict, terms: set
) -> None:
    method = stirred(**options)
    found = method.loss(batch_for(method))
    assert terms <= set(found)
    found["loss"].backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    again = build(method.deliverable_spec())
    again.load_state_dict(method.deliverable().state_dict())
    clip = torch.randn(2, 1, 4, 16, 16)
    with torch.no_grad():
        assert torch.equal(again(clip), method.predict({"clip": clip}))
        assert again(clip).shape == (2, 96)


def test_the_teachers_temperature_rises_with_the_epochs() -> None:
    method = methods.DISCOVR(channels=1, teacher_warmup_epochs=10, **TINY)
    method.plan(100, 4)
    method.steps = 20
    assert method.teacher_temperature == pytest.approx(0.055)
    method.steps = 80
    assert method.teacher_temperature == pytest.approx(0.07)


def test_what_makes_no_sense_is_refused() -> None:
    for options, message in (
        ({"encoder": "resnet18"}, "choose vit-nano-video"),
        ({"scd_weight": 0.0} | ALONE, "can't all be 0"),
        ({"video_weight": -1.0}, "video_weight"),
        ({"head": "32-16-8"}, "one width"),
        ({"decoder": "16-1"}, "width, blocks and heads"),
        ({"frames": 5}, "multiple of tubelet"),
    ):
        with pytest.raises(UserError, match=message):
            methods.DISCOVR(channels=1, **TINY | options)


# ---- runs ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders of small videos: a disc that beats slowly, or fast."""
    root = tmp_path_factory.mktemp("user") / "studies"
    for label, rate in (("fast", 1.6), ("slow", 0.5)):
        (root / label).mkdir(parents=True)
        for i in range(7):
            file = str(root / label / f"{i}.avi")
            writer = cv2.VideoWriter(file, cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
            for t in range(6 + i % 2):
                frame = np.full((24, 32, 3), 40, np.uint8)
                cv2.circle(frame, (16, 12), int(6 + 3 * np.sin(rate * t + i)), (200, 200, 200), -1)
                writer.write(frame)
            writer.release()
    return root


@pytest.mark.slow
def test_from_videos_to_a_table_an_export_and_a_report(videos: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    out = tmp_path / "run"
    run = selftaught.train("discovr", f"{videos}?channels=1", out=str(out), preset="laptop", **TINY | QUICK)
    judged = run.evaluate(protocols=["knn", "linear"])
    for kinds in judged.values():
        assert {"this", "random", "raw"} <= set(kinds)
        assert all(0 <= result["accuracy"].mean <= 1 for result in kinds.values())
    table = tmp_path / "found.parquet"
    run.apply(f"{videos}?channels=1", table)
    rows = np.stack(pq.read_table(table)["embedding"].to_numpy())
    assert rows.shape == (14, 96)
    assert np.isfinite(rows).all()
    assert np.ptp(rows, axis=0).max() > 0
    assert run.export("safetensors", tmp_path / "exported").exists()
    page = run.report().read_text(encoding="utf-8")
    assert "data:image" in page
    again = selftaught.load(out)
    x = torch.randn(2, 1, 4, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(again.method.eval().deliverable()(x), run.method.eval().deliverable()(x))


@pytest.mark.slow
def test_a_resumed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    options = TINY | QUICK | {"steps": 10, "augment": "crop", "preset": "laptop", "teacher_warmup_epochs": 3.0}
    whole, cut = cut_and_whole("discovr", tmp_path, options, data="ultrasound?train=18&test=6&frames=8&side=24")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(torch.as_tensor(whole[name]), torch.as_tensor(cut[name])) for name in whole)


@pytest.mark.slow
def test_beating_ellipses_are_learnt_without_collapse() -> None:
    """The sheet's check 5 on generated clips of two rates: the loss falls, prototypes stay in use, clips differ."""
    torch.manual_seed(0)
    more = {"head_norm": "bn", "teacher_temperature": 0.04, "prototypes": 16, "frames": 8, "patch": 8, "image_size": 32}
    method = methods.DISCOVR(channels=1, **TINY | more | {"target_decay": 0.98})
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:32, :32]
    clips = np.empty((48, 8, 32, 32, 1), np.uint8)
    for clip, rate in zip(clips, rng.choice([0.6, 1.5], 48), strict=True):
        (cy, cx), phase = rng.uniform(12, 20, 2), rng.uniform(0, 6)
        for t, frame in enumerate(clip):
            size = 1 + 0.3 * np.sin(rate * t + phase)
            wall = np.exp(-(((np.hypot((x - cx) / 7, (y - cy) / 10) / size - 1) / 0.25) ** 2))
            frame[..., 0] = (60 + 150 * wall + 20 * rng.random((32, 32))).clip(0, 255)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=2e-3, betas=(0.9, 0.95))
    recipe, losses, terms = method.recipe(), [], {}
    for step in range(40):
        some = rng.choice(48, 8, replace=False)
        rows = [recipe.render({"clip": clips[i]}, recipe.sample(rng, {"clip": clips[i].shape})) for i in some]
        batch = method.on_after_batch_transfer({"index": torch.from_numpy(some)} | stack_views(rows, recipe))
        method.before_step()
        terms = method.loss(batch)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["loss"].item())
        assert np.isfinite(losses[-1]), step
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.5
    assert terms["used_prototypes"].item() > 0.25
    everything = torch.from_numpy(clips).permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        found = method.predict({"clip": method.normalise(everything)})
    assert found.std(0).mean() > 1e-3


def test_other_clips_are_scaled_as_the_runs_own() -> None:
    """16-bit clips that are judged by a run are scaled by its range of values, not by their own."""
    from selftaught.data import Source
    from selftaught.engine.in_order import evaluation_batches

    class Deep(Source):
        name, modality, channels, names = "deep", "clip", 1, ["a"]

        def frames(self, i: int) -> int:
            return 4

        def read(self, i: int, min_side: int | None = None, frames: np.ndarray | None = None) -> np.ndarray:
            ramp = np.linspace(0, 20000, 256).reshape(1, 16, 16, 1).astype(np.uint16)
            return np.repeat(ramp, 4 if frames is None else len(frames), axis=0)

    view = methods.DISCOVR(channels=1, **TINY).evaluation_view()
    found = [
        next(evaluation_batches(Deep(), view, workers=0, value_range=value_range))["clip"].max().item()
        for value_range in (None, np.array([[0.0, 40000.0]]))
    ]
    assert found[0] == pytest.approx(255 * 20000 / 65535, abs=2)
    assert found[1] == pytest.approx(255 * 20000 / 40000, abs=2)

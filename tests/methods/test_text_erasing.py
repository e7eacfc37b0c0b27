"""Text erasing as wired: what the loader draws, who gets which gradient, the policy's steps, runs of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import selftaught
from selftaught import methods
from selftaught.engine.loader import DataModule
from selftaught.errors import UserError

TINY: dict[str, Any] = {
    "width": 2, "fill": True, "spectral": False, "discriminator_width": 2, "discriminator_levels": 3, "patch": 32,
    "features": "none", "text": 1, "policy_pool": 4, "policies": 2,
}  # fmt: skip
RUN: dict[str, Any] = {"batch_size": 2, "workers": 0, "quiet": True, "loggers": ["none"], "device": "cpu"}
DATA = "photos:lettered?tile=48&train=2&test=1"


def first(method: Any, source: Any = DATA, rows: int = 8) -> dict[str, Any]:
    return next(iter(DataModule(source, method, batch_size=rows, workers=0).train_dataloader()))


def test_the_loader_draws_in_the_policies_styles() -> None:
    torch.manual_seed(0)  # one time in sixteen all four policies copy letters from the start
    method = methods.TextErasing(**TINY)
    x, g, m, real = method.parts(first(method))
    assert m.shape == real.shape == (8, 1, 32, 32)
    assert torch.equal(x * m, g * m)
    assert (m == 0).any()
    assert ((m == 0) & (x != g)).any()
    assert (real == 0).any()
    method.policies[:] = 0  # copies of the letters that a patch has
    _, _, copied, _ = method.parts(first(method))
    assert not torch.equal(copied, m)
    method.policies.copy_(torch.tensor([1, 0, 2, 2] + [0] * 14))
    _, _, large, _ = method.parts(first(method))
    assert (large == 0).any()


def test_every_policy_and_loss_has_its_terms() -> None:
    torch.manual_seed(0)
    cases: list[dict[str, Any]] = [
        {"policy": "random", "adaptation": "rsd"},
        {"policy": "random", "adaptation": "afn"},
        {"policy": "random", "adaptation": "dann"},
        {"policy": "none", "paste": False, "features": "random"},
        {"policy": "data-dependent", "rewards": "difficulty"},
        {"supervised": True, "triplet": False, "policy": "none"},
    ]
    for options in cases:
        method = methods.TextErasing(**TINY | options)
        x, g, m, real = method.parts(first(method, rows=2))
        made = method.generator(x)
        terms = method.generator_terms(made, x, method.shown(x, made.image, m, real), g, m, real)
        assert torch.isfinite(terms["loss"])
        assert ("valid" in terms) == (not method.config.paste)
        assert ("style" in terms) == (method.config.features != "none")
        assert ("adaptation" in terms) == (method.config.adaptation != "none")
        assert ("triplet" in terms) == method.config.triplet
        assert ("policy" in method.optimisers()) == (
            options["policy"] == "data-dependent" if "policy" in options else 0
        )


def test_rewards_leave_the_generator_alone() -> None:
    torch.manual_seed(0)
    method = methods.TextErasing(**TINY)
    _, g, _, real = method.parts(first(method, rows=2))
    drawn = method.controller(2)
    e, q = method.tried(g, real, drawn.actions)
    assert method.generator.training
    rewards, told = method.rewards(e, q)
    assert not rewards.requires_grad
    assert rewards.shape == (2,)
    assert float(method.difficulty) == pytest.approx(float(e.mean()))
    assert float(method.realism) == pytest.approx(0.05 * float(q.mean()), rel=1e-5)
    loss = -(drawn.log_probs.sum(1) * rewards).mean()
    loss.backward()
    assert all(p.grad is None for p in method.generator.parameters())
    assert all(p.grad is not None for p in method.controller.heads.parameters())
    assert {"difficulty", "realism", "reward"} == set(told)


@pytest.mark.slow
def test_a_run_learns_resumes_applies_and_is_judged(tmp_path: Path) -> None:
    options = TINY | {"policy_every": 3, "policy_updates": 1, "lr": 4e-3, "steps": 7, "checkpoint_steps": 4}
    run = selftaught.train("text-erasing", DATA, out=tmp_path / "run", **options, **RUN)
    after = methods.TextErasing.after_step

    def power_cut(self: Any) -> None:
        after(self)
        if self.steps == 5:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(methods.TextErasing, "after_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train("text-erasing", DATA, out=tmp_path / "cut", **options, **RUN)
    selftaught.train("text-erasing", resume=tmp_path / "cut", quiet=True)
    whole, cut = (
        torch.load(tmp_path / name / "checkpoints/train.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "cut")
    )
    for name, value in whole.items():
        assert torch.equal(cut[name], value), name
    assert float(whole["difficulty"]) > 0
    pictures = tmp_path / "in"
    pictures.mkdir()
    image = np.full((50, 70, 3), 200, np.uint8)
    cv2.putText(image, "SALE", (5, 35), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (10, 10, 10), 2)
    cv2.imwrite(str(pictures / "a.png"), image)
    assert run.apply(pictures, tmp_path / "out") == 1
    made = cv2.imread(str(tmp_path / "out" / "a.png"))
    assert made is not None
    assert made.shape == image.shape
    found = run.evaluate(limit=2)
    assert {"restoration", "residual-text"} <= set(found)


def test_boxes_of_ones_own_and_mistakes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((48, 48, 3), 90, np.uint8))
    (tmp_path / "a.boxes.txt").write_text("10 15 20 20", encoding="utf-8")
    method = methods.TextErasing(**TINY, compose="boxes")
    source = selftaught.data.open_source(str(tmp_path), split="all")
    given = method.companions(source, 0)["boxes"]
    assert given.shape == (1, 1, 48, 48)
    assert given[0, 0, 17, 15] == 1
    assert given[0, 0, 40, 40] == 0
    made, clean, more = method.degraded(np.random.default_rng(0).random((48, 48, 3), dtype=np.float32))
    outside = more["boxes"][0, 0].numpy() == 0
    assert np.array_equal(made[outside], clean[outside])
    for options, said in (({"patch": 40}, "32"), ({"features": "vgg16", "channels": 5}, "VGG")):
        with pytest.raises(UserError, match=said):
            methods.TextErasing(**TINY | options)
    with pytest.raises(UserError, match="clean"):
        methods.TextErasing.arranged({"data": source}, methods.TextErasing(**TINY, supervised=True).config)


def test_boxes_are_those_of_the_pictures_that_a_run_is_applied_to(tmp_path: Path) -> None:
    """A folder that the run learnt with holds boxes of other pictures of the same names."""
    rng = np.random.default_rng(0)
    for place in ("learnt/a", "learnt/b", "others/a", "others/b", "films/one/0", "films/one/1"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / f"{place}.png"), rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    boxes = {"boxes/a": "4 30 12 36", "others/a": "40 12 56 20", "asked/a": "20 20 30 24", "asked/one": "20 20 30 24"}
    for place, box in boxes.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / f"{place}.boxes.txt").write_text(box, encoding="utf-8")
    options = TINY | {"steps": 1, "compose": "boxes", "boxes": str(tmp_path / "boxes")}
    run = selftaught.train("text-erasing", str(tmp_path / "learnt"), out=tmp_path / "run", **options, **RUN)

    def changed(source: str, out: str, **how: Any) -> np.ndarray:
        run.apply(tmp_path / source, tmp_path / out, **how)
        before, after = (cv2.imread(str(tmp_path / place / "a.png")) for place in (source, out))
        rows, columns = np.nonzero((before != after).any(2))  # type: ignore[union-attr, operator]
        return np.array([columns.min(), columns.max(), rows.min(), rows.max()])

    dilated, near = np.array([-4, 4, -8, 8]), 2  # a pixel may come out as it was
    for source, out, box, how in (
        ("learnt", "own", (4, 12, 30, 36), {}),
        ("others", "beside", (40, 56, 12, 20), {}),
        ("others", "for", (20, 30, 20, 24), {"boxes": str(tmp_path / "asked")}),
    ):
        np.testing.assert_allclose(changed(source, out, **how), np.add(box, dilated), atol=near)
    how = {"boxes": str(tmp_path / "asked")}
    (tmp_path / "asked" / "a.boxes.txt").write_text("44 8 58 14", encoding="utf-8")  # only this picture is made again
    np.testing.assert_allclose(changed("others", "for", **how), np.add((44, 58, 8, 14), dilated), atol=near)
    assert run.apply(tmp_path / "others", tmp_path / "for", **how).kept == 2
    films = f"frames:{tmp_path / 'films'}"
    assert run.apply(films, tmp_path / "film", boxes=str(tmp_path / "asked")) == 1
    before, after = (cv2.imread(str(tmp_path / place / "one" / "1.png")) for place in ("films", "film"))
    rows = np.nonzero((before != after).any((1, 2)))[0]  # type: ignore[union-attr, operator]
    np.testing.assert_allclose([rows.min(), rows.max()], [12, 32], atol=near)
    with pytest.raises(UserError, match="boxes of a video come from a file"):
        run.apply(films, tmp_path / "none", boxes="detect")

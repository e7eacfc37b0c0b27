"""CLIP trained further from a model of open_clip: towers, texts, pixels and scale are that model's."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

import selftaught
from selftaught.errors import UserError
from selftaught.networks.open_clips import open_clip_dual, open_clip_model, open_clip_plan
from selftaught.run.suites.forgetting import between

open_clip = pytest.importorskip("open_clip")
DATA = "scenes?train=24&test=8&side=20"
TEXTS = ["a red square", "Two dogs, asleep!", "x " * 90]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, str]:
    """A small model of open_clip with weights of its own in a file, and what it is called."""
    folder = tmp_path_factory.mktemp("open_clip")
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    config = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": {"width": 16, "heads": 2, "layers": 2}}
    (folder / "ViT-tiny-8.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "ViT-tiny-8.json")
    torch.manual_seed(3)
    made = open_clip.create_model("ViT-tiny-8").eval()
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.05 * torch.randn_like(value))
    torch.save(made.state_dict(), folder / "weights.pt")
    return made, f"open_clip:ViT-tiny-8/{folder / 'weights.pt'}"


@pytest.mark.parametrize("slug", ["clip", "clip-baselines"])
def test_a_start_is_open_clip_s_model(slug: str, model: tuple[torch.nn.Module, str], tmp_path: Path) -> None:
    original, name = model
    more = {"objective": "byolip", "siam_widths": "16-8", "siam_hidden": 16} if slug == "clip-baselines" else {}
    options = {
        "init": name,
        "steps": 2,
        "batch_size": 8,
        "quiet": True,
        "lr": 1e-2,
        "held_out": 0.0,
        "patience": 0,
    } | more
    run = selftaught.train(slug, DATA, out=tmp_path / "none", interpolate=0.0, **options)
    assert run.config["settings"]["preset"] == "fine-tune"
    assert run.config["options"]["text_activation"] == "gelu"
    assert run.config["data"]["mean"] == list(open_clip.OPENAI_DATASET_MEAN)
    method, x = run.method.eval(), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        texts = original.encode_text(open_clip.get_tokenizer("ViT-tiny-8")(TEXTS))
        torch.testing.assert_close(method.embed_texts(TEXTS), normalize(texts, dim=1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(method.model(x), normalize(original.encode_image(x), dim=1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(method.model.scale, original.logit_scale)
    if slug == "clip":
        moved = selftaught.train(slug, DATA, out=tmp_path / "moved", interpolate=1.0, **options).encoder.state_dict()
        assert not torch.equal(moved["text.token_embedding.weight"], original.token_embedding.weight)
        assert torch.equal(moved["image.model.norm_pre.weight"], original.visual.ln_pre.weight)  # norms stand still
        with pytest.raises(UserError, match="its tokeniser is clip, not words-4096"):
            selftaught.train(slug, DATA, out=tmp_path / "no", tokeniser="words-4096", **options)


def test_only_the_image_tower_where_there_are_no_words(model: tuple[torch.nn.Module, str], tmp_path: Path) -> None:
    original, name = model
    options = {"out": tmp_path / "run", "steps": 1, "batch_size": 8, "quiet": True, "lr": 0.0, "projector": "16-16"}
    run = selftaught.train("simclr", DATA, init=name, weight_decay=0.0, **options)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(run.encoder.eval()(x) @ original.visual.proj, original.encode_image(x))


def test_what_is_another_network_is_refused(model: tuple[torch.nn.Module, str]) -> None:
    for name, message in (
        ("open_clip:ViT-tiny-8", "ViT-tiny-8: no weights named; write open_clip:ViT-tiny-8/WEIGHTS"),
        ("open_clip:ViT-B-32/nothing", "no such weights, and no such file"),
        ("open_clip:RN50/random", "is a ResNet with a pooling of its own"),
        ("open_clip:ViT-B-16-SigLIP/random", "reads texts in its own way"),
    ):
        with pytest.raises(UserError, match=message):
            open_clip_plan(name)
    open_clip_model(model[1])  # the file fits
    with pytest.raises(UserError, match=r"can't be had here .*; give the weights of this architecture"):
        open_clip_model(model[1].replace("ViT-tiny-8/", "ViT-S-32-alt/"))


def test_a_tower_that_pools_otherwise_is_found_out(tmp_path: Path) -> None:
    vision = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "pool_type": "avg"}
    text = {"width": 16, "heads": 2, "layers": 1, "vocab_size": 64}
    (tmp_path / "ViT-mean-8.json").write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path / "ViT-mean-8.json")
    with pytest.raises(UserError, match="its image tower does something that CLIP's does not"):
        open_clip_dual("open_clip:ViT-mean-8/random")


def test_openai_s_weights_have_their_activation_and_none_at_hand_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert open_clip_plan("open_clip:ViT-B-32/openai").text["activation"] == "quick-gelu"
    assert open_clip_plan("open_clip:ViT-B-32/openai").encoder == "vit_base_patch32_clip_224?act_layer=quick_gelu"
    assert open_clip_plan("open_clip:ViT-B-32/laion2b_s34b_b79k").encoder == "vit_base_patch32_clip_224"

    def nobody(*_: object, **__: object) -> None:
        raise OSError("no network")

    asked: list[str] = []
    monkeypatch.setattr(socket, "create_connection", nobody)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: asked.append("again"))
    with pytest.raises(UserError, match=r"ViT-B-32/openai can't be had here .*go online once"):
        open_clip_model("open_clip:ViT-B-32/openai")
    assert not asked  # nobody is asked again and again


def test_what_is_forgotten_is_measured_at_every_mixture(tmp_path: Path) -> None:
    tiny = {
        "encoder": "cnn-small", "image_size": 16, "dim": 8, "tokeniser": "words-256", "context": 10, "text_width": 16,
        "text_heads": 2, "text_layers": 1, "quiet": True, "batch_size": 32,
    }  # fmt: skip
    start = selftaught.train("clip", "scenes?train=64&test=24&side=16", out=tmp_path / "start", steps=40, **tiny)
    more = {"init": str(start.path), "steps": 12, "lr": 1e-2, "interpolate": 0.4, "held_out": 0.0, "patience": 0}
    run = selftaught.train("clip", "emoji?n=60", out=tmp_path / "run", **more, quiet=True, batch_size=16)
    said: list[str] = []
    found = run.evaluate(protocols=["forgetting"], say=said.append)["forgetting"]
    rows = found["this"].figures["sweep"]
    assert [row["share"] for row in rows] == [k / 10 for k in range(11)]
    assert len([line for line in said if "trained:" in line]) == 11
    (first,) = [row for row in rows if row["share"] == 0]
    plain = start.evaluate(protocols=["zero-shot", "text-retrieval"], baselines=False)
    assert first["zero-shot, start's data"] == pytest.approx(plain["zero-shot"]["this"]["accuracy"].mean)
    (kept,) = [row for row in rows if row["share"] == 0.4]
    mine = run.evaluate("scenes?train=64&test=24&side=16", protocols=["zero-shot"], baselines=False)["zero-shot"]
    assert kept["zero-shot, start's data"] == pytest.approx(mine["this"]["accuracy"].mean)
    lost = found["this"]["zero-shot, start's data, lost"].mean
    assert lost == pytest.approx(first["zero-shot, start's data"] - kept["zero-shot, start's data"])
    run.report()
    assert "Between start and end" in run.layout.report.read_text()
    with pytest.raises(UserError, match="this run began at random"):
        start.evaluate(protocols=["forgetting"])
    began, trained = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 2.0])}
    torch.testing.assert_close(between(began, trained, 2.0)["w"], torch.tensor([5.0, 2.0]))
    one, other = ({"w": torch.randn(999, generator=torch.Generator().manual_seed(k)) * 10**k} for k in (1, 3))
    assert torch.equal(between(one, other, 1.0)["w"], other["w"]), "to the bit"
    assert torch.equal(between(one, other, 0.0)["w"], one["w"])

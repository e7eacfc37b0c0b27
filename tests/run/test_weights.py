"""Starting from weights that were made elsewhere, and giving ours to timm."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import selftaught
from selftaught import methods
from selftaught.errors import UserError
from selftaught.run.initialising import start_from
from selftaught.run.layout import Layout
from selftaught.run.weights import fitted, read_weights

SMALL: dict[str, Any] = {"projector": "8-8", "augment": "grey", "stem": "standard"}


def method(slug: str = "simclr", encoder: str = "resnet10t", channels: int = 3, size: int = 32, **more: Any) -> Any:
    return methods.get(slug)(encoder=encoder, image_size=size, channels=channels, **SMALL | more)


def test_a_file_of_any_wrapping_gives_the_encoder_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = timm.create_model("resnet10t", num_classes=7)
    state = model.state_dict()
    torch.save({"epoch": 3, "state_dict": {f"module.backbone.{k}": v for k, v in state.items()}}, tmp_path / "a.pth")
    save_file(state, tmp_path / "b.safetensors")
    x = torch.rand(2, 3, 32, 32)
    expected = model.eval().forward_head(model.forward_features(x), pre_logits=True)
    for name in ("a.pth", "b.safetensors"):
        one = method()
        start_from(one, str(tmp_path / name))
        torch.testing.assert_close(one.encoder.eval()(x), expected)


def test_channels_positions_and_patches_are_fitted(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=64, patch_size=8)
    torch.save(model.state_dict(), tmp_path / "vit.pt")
    same = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=64, patch_size=8)
    same.load_state_dict(fitted(read_weights(tmp_path / "vit.pt"), same, "x"))
    assert torch.equal(same.pos_embed, model.pos_embed)
    other = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=96, patch_size=8, in_chans=1)
    state = fitted(read_weights(tmp_path / "vit.pt"), other, "x")
    old = model.pos_embed[:, 1:].reshape(1, 8, 8, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(old, (12, 12), mode="bicubic", antialias=True)
    torch.testing.assert_close(state["pos_embed"][:, 1:], resized.permute(0, 2, 3, 1).reshape(1, 144, -1))
    torch.testing.assert_close(state["pos_embed"][:, :1], model.pos_embed[:, :1])
    grey = model.patch_embed.proj.weight.sum(1, keepdim=True)
    torch.testing.assert_close(state["patch_embed.proj.weight"], grey)


def test_what_does_not_fit_is_refused_and_named(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match="use the same encoder"):
        start_from(method(), str(tmp_path / "other.pth"))
    (tmp_path / "noise.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match=r"noise.pth: no weights that can be read safely"):
        start_from(method(), str(tmp_path / "noise.pth"))
    torch.save({"lr": 0.1}, tmp_path / "none.pth")
    with pytest.raises(UserError, match="holds no weights by name"):
        start_from(method(), str(tmp_path / "none.pth"))
    with pytest.raises(UserError, match="timm has no such model"):
        start_from(method(), "timm:resnet10tt")
    with pytest.raises(UserError, match='did you mean init="timm:resnet10t'):
        start_from(method(), "resnet10t")


@pytest.mark.parametrize("slug", ["byol", "moco-v2", "dino"])
def test_a_momentum_copy_begins_as_what_it_follows(slug: str, tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "w.pth")
    more = {"local_crops": 0} if slug == "dino" else {}
    one = method(slug, **more)
    start_from(one, str(tmp_path / "w.pth"))
    followed, copied = one.followed().state_dict(), one.momentum.average.state_dict()
    assert followed.keys() == copied.keys()
    assert all(torch.equal(followed[name], copied[name]) for name in followed)
    assert one.momentum.updates == 0


@pytest.mark.slow
def test_timm_loads_our_export_and_a_run_starts_from_it(tmp_path: Path) -> None:
    """From a run, through ``timm.create_model("local-dir:...")``, into the next run."""
    options: dict[str, Any] = {
        "encoder": "resnet10t", "stem": "standard", "image_size": 32, "projector": "8-8", "augment": "grey",
        "steps": 2, "batch_size": 8, "workers": 0, "loggers": ["none"], "precision": "32", "knn_every": 0,
        "device": "cpu", "quiet": True,
    }  # fmt: skip
    run = selftaught.train("simclr", "digits", out=str(tmp_path / "run"), **options)
    folder = run.export("timm", tmp_path / "export")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(model(x), run.encoder(x))
    assert model.pretrained_cfg["mean"] == run.config["data"]["mean"]
    options.pop("encoder")
    again = selftaught.train(
        "byol", "digits", out=str(tmp_path / "again"), init=f"timm:local-dir:{folder}", **options | {"lr": 1e-12}
    )
    assert again.config["options"]["encoder"] == "resnet10t"
    shutil.rmtree(folder)  # a run that is begun needs it no more
    again.layout.weights.unlink()
    again = selftaught.train("byol", resume=str(again.path), quiet=True)
    found: Any = again.encoder
    torch.testing.assert_close(found.model.conv1[0].weight, model.conv1[0].weight)


def test_a_run_of_other_channels_and_size_gives_its_encoder(tmp_path: Path) -> None:
    """Colour to grey, as from a file: the first layer sums its channels; another network is refused."""
    first = method(channels=3)
    (tmp_path / "run").mkdir()
    layout = Layout(tmp_path / "run")
    save_file(first.deliverable().state_dict(), layout.weights)
    layout.card.write_text("{}")
    grey = method(channels=1, size=64)
    start_from(grey, str(tmp_path / "run"))
    own, given = grey.encoder.model.state_dict(), first.encoder.model.state_dict()
    torch.testing.assert_close(own["conv1.0.weight"], given["conv1.0.weight"].sum(1, keepdim=True))
    torch.testing.assert_close(own["layer4.0.conv1.weight"], given["layer4.0.conv1.weight"])
    with pytest.raises(UserError, match="use the same encoder"):
        start_from(method(encoder="resnet18"), str(tmp_path / "run"))


def test_a_model_of_timms_is_suggested_where_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no such run folder; did you mean init="timm:resnet18"'):
        selftaught.train("glare", "digits", init="resnet18", out=str(tmp_path / "run"), steps=1)
    with pytest.raises(UserError, match=r"give it with init=RUN \(an encoder may also be timm:NAME"):
        selftaught.train("glare", "digits", out=str(tmp_path / "run"), steps=1)

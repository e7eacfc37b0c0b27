"""A module of the user's own as the encoder, at both levels, and a run of it opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import selftaught
from selftaught import UserError, methods, networks
from selftaught.cli import main
from selftaught.networks import own
from tests.conftest import TINY


def module() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, 2))


def test_a_method_takes_a_module_with_its_weights() -> None:
    given = module()
    method = methods.SimCLR(encoder=given, channels=1, image_size=32, projector="8-4")
    assert method.encoder.dim == 5
    x = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(method.eval().encoder(x), given.eval()(x).mean((2, 3)))
    assert method.encoder.model.module is not given
    again = networks.name_module(module())
    assert again == method.config.encoder, "the name is of the layers, not of the weights"
    assert networks.name_module(nn.Sequential(*module(), nn.ReLU())) != again


def test_a_run_of_ones_own_encoder(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    given = module()
    options: dict[str, Any] = {name: value for name, value in TINY.items() if name not in ("encoder", "stem")}
    run = selftaught.train("simclr", "digits", encoder=given, augment="grey", out=str(tmp_path / "run"), **options)
    found = run.evaluate(protocols=["diagnostics"])["diagnostics"]
    assert set(found) == {"this", "random", "raw"}
    x = torch.rand(2, 1, 32, 32)
    wanted = run.encoder(x)
    assert not torch.equal(run._untrained().encoder(x), wanted)
    assert run.export(out=tmp_path / "encoder.onnx") == tmp_path / "encoder.onnx"
    with pytest.raises(UserError, match="is not a timm network"):
        run.export("timm", tmp_path / "timm")
    monkeypatch.setattr(own, "_GIVEN", {})  # another process
    assert main(["export", str(tmp_path / "run")]) == 2
    assert "selftaught.load(RUN, encoder=MODULE)" in capsys.readouterr().err
    torch.testing.assert_close(selftaught.load(tmp_path / "run", encoder=module()).encoder(x), wanted)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(nn.Conv2d(3, 4, 3), "takes no"), (nn.Flatten(0), "makes"), (nn.Unflatten(1, (1, 1)), "makes")],
)
def test_what_makes_no_features_is_refused(wrong: nn.Module, said: str) -> None:
    with pytest.raises(UserError, match=said):
        methods.SimCLR(encoder=wrong, channels=1, image_size=32, projector="8-4")


def test_views_are_taken_under_their_short_name(tmp_path: Path) -> None:
    view = selftaught.views.Pipeline((selftaught.views.RandomResizedCrop(32, scale=(0.5, 1)),))
    run = selftaught.train("simclr", "digits", views=view, out=str(tmp_path / "run"), **TINY)
    assert "views" in run.config["data"]

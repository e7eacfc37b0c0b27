"""Lightning's ``load_from_checkpoint`` needs nothing but the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from selftaught import DataModule, UserError, catalog, methods

SMALL = {"encoder": "resnet10-narrow", "image_size": 32, "stem": "standard", "projector": "16-8"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("dcl", SMALL | {"channels": 4, "temperature": 0.3}),
    ("isogclr", SMALL | {"samples": 23, "projector": "16-16-8"}),
    ("supervised", {"encoder": "resnet10-narrow", "image_size": 32, "classes": 5, "smoothing": 0.1}),
    ("swav", SMALL | {"prototypes": "7-9", "local_crops": 0}),
    ("c-bsn", {"width": 8, "modules": 1, "patch": 20, "channels": 1}),
    ("frame-projections", {"channels": 2, "length": 64}),
]


@pytest.mark.parametrize(("slug", "given"), CASES, ids=[slug for slug, _ in CASES])
def test_the_method_comes_back_as_it_was_built(slug: str, given: dict[str, Any], tmp_path: Path) -> None:
    kind = methods.get(slug)
    method = kind(**given)
    content: dict[str, Any] = {"state_dict": method.state_dict(), "pytorch-lightning_version": L.__version__}
    method.on_save_checkpoint(content)
    torch.save(content, tmp_path / "a.ckpt")
    again = kind.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert again.config == method.config
    assert {o.name for o in catalog.options(slug)} >= set(given) - {"channels", "length", "samples", "classes"}
    for name in ("channels", "length", "samples", "classes", "modality"):
        assert getattr(again, name) == getattr(method, name)
    state = again.state_dict()
    assert state.keys() == method.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in method.state_dict().items())


def test_a_trained_one_predicts_the_same_and_single_options_can_be_changed(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    method = methods.SimCLR(**SMALL, temperature=0.4)
    trainer = L.Trainer(
        max_epochs=1, limit_train_batches=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(method, DataModule(images, method, batch_size=8, workers=0))
    trainer.save_checkpoint(tmp_path / "b.ckpt")
    again = methods.SimCLR.load_from_checkpoint(tmp_path / "b.ckpt", weights_only=True)
    assert (again.config.temperature, again.steps) == (0.4, 2)
    batch = {"views": [torch.randn(4, 3, 32, 32)]}
    with torch.no_grad():
        torch.testing.assert_close(again.eval().predict(batch), method.eval().predict(batch))
    other = methods.SimCLR.load_from_checkpoint(tmp_path / "b.ckpt", weights_only=True, temperature=0.1)
    assert other.config.temperature == 0.1
    with pytest.raises(UserError, match="no option"):
        methods.CBSN.load_from_checkpoint(tmp_path / "b.ckpt", weights_only=True)


def test_weights_of_a_checkpoint_are_not_downloaded_first() -> None:
    method = methods.SimCLR(**SMALL)
    method.config.pretrained = True
    content: dict[str, Any] = {}
    method.on_save_checkpoint(content)
    assert content[L.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY]["config"]["pretrained"] is False

"""A run from Python: what it holds, what it writes, and that its exports load without selftaught."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn.neighbors import KNeighborsClassifier

import selftaught
from selftaught import UserError
from selftaught.cli import main
from selftaught.data import open_source
from selftaught.errors import Remark
from selftaught.evaluation import knn
from selftaught.run.features import embed
from tests import forked
from tests.conftest import TINY, write_photos
from tests.harness import killing


def test_folder_holds_what_the_contract_says(tiny_run) -> None:
    names = {path.name for path in tiny_run.path.iterdir()}
    assert {"config.yaml", "checkpoints", "encoder.safetensors", "encoder.json", "metrics.csv", "state.json"} <= names
    config = yaml.safe_load((tiny_run.path / "config.yaml").read_text())
    assert config["method"] == "simclr"
    assert config["options"]["projector"] == "32-16"
    assert config["settings"]["steps"] == 12
    card = json.loads((tiny_run.path / "encoder.json").read_text())
    assert card["channels"] == 1
    assert len(card["normalise"]["mean"]) == 1
    assert any(name.startswith("events") for name in (p.name for p in tiny_run.path.rglob("events*")))


def test_others_may_read_the_weights_as_far_as_the_umask_says(tmp_path: Path) -> None:
    from selftaught.run.layout import write_tensors, write_text

    before = os.umask(0o027)
    try:
        write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(2)})
        write_text(tmp_path / "b", "text")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.safetensors", "b")] == [0o640, 0o640]


def test_loading_gives_the_trained_encoder_and_never_unpickles(tiny_run) -> None:
    run = selftaught.load(tiny_run.path)
    state = torch.load(tiny_run.path / "checkpoints/train.ckpt", weights_only=True)["state_dict"]
    for name, value in run.encoder.state_dict().items():
        assert torch.equal(value, state[f"encoder.{name}"])
    assert not run.encoder.training


def test_level_two_lightning_takes_method_and_data() -> None:
    import lightning as L

    from selftaught import DataModule, methods
    from selftaught.engine.trainer import quiet_lightning

    quiet_lightning()
    method = methods.DCL(encoder="resnet10-narrow", image_size=16, channels=1, projector="16-8", augment="grey", lr=0.1)
    before = [p.clone() for p in method.encoder.parameters()]
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=2, limit_train_batches=3, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(method, DataModule("digits", method, batch_size=64, workers=0))
    assert trainer.global_step == 6
    assert any(not torch.equal(a, b) for a, b in zip(before, method.encoder.parameters(), strict=True))


def test_level_three_is_three_lines() -> None:
    from selftaught import objectives, views

    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    x1, x2 = views.simclr(48)(image)
    z1, z2 = torch.randn(8, 16, requires_grad=True), torch.randn(8, 16)
    loss = objectives.simclr(z1, z2, temperature=0.2)
    loss.backward()
    assert tuple(np.asarray(x1).shape[-2:]) == (48, 48) or np.asarray(x1).shape[:2] == (48, 48)
    assert not np.array_equal(np.asarray(x1), np.asarray(x2))
    assert torch.isfinite(z1.grad).all()


def test_unknown_options_and_names_are_refused() -> None:
    from selftaught import methods

    with pytest.raises(UserError, match="did you mean temperature"):
        methods.DCL(temprature=0.1)
    with pytest.raises(UserError, match="it may be: dcl, dclw, infonce"):
        methods.DCL(objective="nce")
    with pytest.raises(UserError, match="no option 'epoch' for dcl: did you mean epochs"):
        selftaught.train("dcl", "digits", epoch=3)
    with pytest.raises(AttributeError):
        selftaught.nothing  # noqa: B018


def test_arrays_and_torch_datasets_train(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 20, 20, 3), dtype=np.uint8)
    run = selftaught.train("simclr", images, out=str(tmp_path / "a"), **TINY)
    assert run.config["data"]["samples"] == 64
    data = torch.utils.data.TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2), torch.arange(64) % 3)
    run = selftaught.train("simclr", data, out=str(tmp_path / "b"), **TINY)
    assert run.config["data"]["channels"] == 3


@pytest.mark.slow
def test_evaluation_stands_beside_untrained_and_raw(tiny_run) -> None:
    found = tiny_run.evaluate(protocols=["knn", "linear", "fewlabel", "diagnostics"], seeds=2)
    assert set(found["knn"]) == {"this", "random", "raw"}
    tuned = tiny_run.evaluate(protocols=["finetune"], fraction=0.1)
    assert set(tuned) == {"finetune 10%"}
    assert set(tuned["finetune 10%"]) == {"this", "random"}
    for kinds in (found["knn"], found["linear"]):
        scores = {kind: result["accuracy"].mean for kind, result in kinds.items()}
        assert scores["raw"] > 0.9, "the digits' pixels alone are nearly enough"
        assert 0.15 < scores["this"] <= 1, "chance is a tenth"
        assert len(set(scores.values())) == 3, "three encoders, one score"
    model = tiny_run.method.eval()
    x, y = embed(model, open_source("digits", split="train"), workers=0)[:2]
    tx, ty = embed(model, open_source("digits", split="test"), workers=0)[:2]
    by_hand = KNeighborsClassifier(1, metric="cosine").fit(x, y).score(tx, ty)
    assert found["knn"]["this"]["accuracy"].mean == pytest.approx(by_hand, abs=0.1)
    assert found["knn"]["this"]["accuracy"].mean == knn(x, y, tx, ty).numbers["accuracy"].mean
    again = tiny_run.evaluate(protocols=["knn"])
    assert again["knn"]["this"]["accuracy"].mean == found["knn"]["this"]["accuracy"].mean
    stored = json.loads((tiny_run.path / "evaluation.json").read_text())
    assert set(stored) >= {"knn", "linear", "fewlabel", "diagnostics", "finetune 10%"}
    page = tiny_run.report().read_text()
    assert "untrained" in page
    for kind in ("this", "random", "raw"):
        assert f"{found['knn'][kind]['accuracy'].mean:.3f}" in page


def _expected(run, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return run.encoder.float()(x)


@pytest.mark.slow
def test_timm_export_runs_in_plain_timm(tiny_run, tmp_path: Path) -> None:
    folder = tiny_run.export("timm", tmp_path / "timm")
    x = torch.rand(3, 1, 32, 32)
    torch.save(x, tmp_path / "x.pt")
    forked.run(
        f"import sys, torch; sys.modules['selftaught'] = None; sys.path.insert(0, {str(folder)!r}); import load\n"
        "torch.save(load.embed(torch.load('x.pt')), 'y.pt')",
        tmp_path,
    )
    normalise = json.loads((folder / "config.json").read_text())["normalise"]
    expected = _expected(tiny_run, (x - normalise["mean"][0]) / normalise["std"][0])
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_onnx_export_runs_in_onnxruntime_at_any_batch_size(tiny_run, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    with killing(None) as passed:
        path = tiny_run.export("onnx", tmp_path / "encoder.onnx")
    assert passed == [2], "put in place in one step, so that a kill leaves no half file under its name"
    assert [p.name for p in tmp_path.glob("*onnx*")] == ["encoder.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        x = torch.randn(batch, 1, 32, 32)
        (found,) = session.run(None, {"input": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), _expected(tiny_run, x), rtol=1e-4, atol=1e-4)
    keys = {entry.key for entry in onnx.load(path).metadata_props}
    assert {"selftaught", "normalise"} <= keys


def test_a_file_that_takes_one_size_of_batch_alone_is_said_in_a_line(
    tiny_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    free = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: free(*a, **k | {"dynamic_shapes": None}))
    assert main(["export", str(tiny_run.path), "--format", "onnx", "--out", str(tmp_path / "fixed.onnx")]) == 0
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("selftaught: the ONNX file takes batches of ")
    assert "UserWarning" not in said
    assert "Remark" not in said
    with pytest.warns(Remark, match="takes batches of"):
        tiny_run.export("onnx", tmp_path / "again.onnx")


@pytest.mark.slow
def test_apply_streams_twenty_thousand_images_in_bounded_memory(tiny_run, tmp_path: Path) -> None:
    """Peak memory for 20,000 images is within 150 MB of that for 2,000; order and names are kept; a cut is mended."""
    images = np.random.default_rng(0).integers(0, 256, (20_000, 24, 24), dtype=np.uint8)
    np.save(tmp_path / "many.npy", images)
    np.save(tmp_path / "few.npy", images[:2000])
    peaks = {}
    for name in ("few", "many"):
        said = forked.run(
            "import resource, selftaught\n"
            f"selftaught.load({str(tiny_run.path)!r}).apply('{name}.npy', '{name}.parquet', workers=0)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)",
            tmp_path,
        )
        peaks[name] = int(said.strip().splitlines()[-1]) / 1024
    assert peaks["many"] - peaks["few"] < 150
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "many.parquet")
    assert table.num_rows == 20_000
    assert table.column("index").to_pylist() == list(range(20_000))
    few = pq.read_table(tmp_path / "few.parquet").column("embedding").to_pylist()
    many = table.column("embedding").slice(0, 2000).to_pylist()
    np.testing.assert_allclose(many, few, rtol=1e-2, atol=1e-2)


def test_apply_goes_on_where_it_was_cut_off(tiny_run, tmp_path: Path) -> None:
    from selftaught.run import applying

    images = np.random.default_rng(0).integers(0, 256, (9000, 12, 12), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    out = tmp_path / "e.npy"

    class Cut(Exception):
        pass

    def cut(done: int) -> None:
        if done > 5000:
            raise Cut

    source = applying.open_input(tmp_path / "images.npy", tiny_run.method)
    with pytest.raises(Cut):
        tiny_run.apply(tmp_path / "images.npy", out, workers=0, progress=cut)
    assert not out.exists()
    seen: list[int] = []
    assert tiny_run.apply(tmp_path / "images.npy", out, workers=0, progress=seen.append) == 9000
    assert seen[0] == 4096  # the finished part was not done again
    found = np.load(out)
    assert found.shape[0] == 9000
    features, _, _ = embed(tiny_run.method, source.subset(np.arange(4090, 4110)), workers=0)
    np.testing.assert_allclose(found[4090:4110], features, rtol=1e-2, atol=1e-2)
    assert not (tmp_path / "e.npy.parts").exists()
    (tmp_path / "f.npy.parts").mkdir()
    with pytest.raises(UserError, match="holds what this run did not write"):
        tiny_run.apply(tmp_path / "images.npy", tmp_path / "f.npy", workers=0)


def test_out_folder_in_use_is_refused_and_default_folders_are_numbered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").write_text("")
    with pytest.raises(UserError, match="not empty"):
        selftaught.train("simclr", "digits", out="used", **TINY)
    from selftaught.run.layout import new_folder

    assert [str(new_folder(None, "dcl", "my photos/")) for _ in range(2)] == [
        "runs/dcl-my-photos",
        "runs/dcl-my-photos-2",
    ]


def test_starting_from_another_run(tiny_run, tmp_path: Path) -> None:
    run = selftaught.train("dcl", "digits", out=str(tmp_path / "run"), init=str(tiny_run.path), augment="grey",
                           **TINY | {"steps": 1}, lr=0.0)  # fmt: skip
    a, b = tiny_run.encoder.state_dict(), run.encoder.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a if "running" not in k and "num_batches" not in k)


def test_a_batch_that_nobody_chose_is_lowered_to_few_samples(tmp_path: Path, capsys) -> None:
    write_photos(tmp_path / "photos", count=40, classes=1)
    options = {name: value for name, value in TINY.items() if name not in ("batch_size", "steps", "quiet")}
    run = selftaught.train("simclr", str(tmp_path / "photos"), out=str(tmp_path / "run"), steps=2, **options)
    assert run.settings.batch_size == 16
    assert "batches of 16 in place of" in capsys.readouterr().err
    with pytest.raises(UserError, match="fewer than one batch of 64"):
        selftaught.train("simclr", str(tmp_path / "photos"), out=str(tmp_path / "b"), steps=2, batch_size=64, **options)
    assert not (tmp_path / "b").exists()

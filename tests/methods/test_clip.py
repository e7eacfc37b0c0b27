"""CLIP and its improved relatives: what they learn from, how they step, words in use, resuming."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import selftaught
from selftaught import methods, objectives
from selftaught.cli import main
from selftaught.data import open_source
from selftaught.engine.distributed import rank
from selftaught.engine.loader import DataModule
from selftaught.errors import UserError
from selftaught.methods import _dual
from selftaught.networks import caching
from selftaught.run.searching import nearest_rows
from selftaught.run.suites import image_text
from selftaught.run.suites.image_text import prompts
from tests.methods.resuming import cut_and_whole
from tests.two_processes import by_two

TINY = {
    "encoder": "cnn-small", "image_size": 16, "dim": 8, "tokeniser": "words-256", "context": 10, "text_width": 16,
    "text_heads": 2, "text_layers": 1,
}  # fmt: skip
SMALL = TINY | {"hidden": 16, "barlip_widths": "16-24", "siam_widths": "16-8", "siam_hidden": 16}
OBJECTIVES = ("clip", "cl2l", "barlip", "siamlip", "byolip", "swalip", "swalip-v1", "slip")


def _batch(method, rows: int = 12, draw: int = 0) -> dict:
    source = open_source(f"scenes?train={rows}&test=1&captions=2&side=20&draw={draw}", split="train")
    data = DataModule(source, method, batch_size=rows, workers=0)
    (batch,) = list(data.train_dataloader())[:1]
    return method.on_after_batch_transfer(batch)


def _method(slug: str = "clip-baselines", **options):
    torch.manual_seed(0)
    return methods.get(slug)(**(TINY if slug == "clip" else SMALL) | options)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_has_a_loss_with_gradients(objective: str) -> None:
    method = _method(objective=objective)
    batch = _batch(method)
    views = 0 if objective == "clip" else 2
    assert {k for k in batch if k.startswith("image")} == {"image_global", *(f"image_{a + 1}" for a in range(views))}
    said = [batch[k] for k in batch if k.startswith("text_")]
    assert len(said) == views + 1
    assert all(x.dtype == torch.int64 for x in said), "the loader makes numbers of texts, never the step"
    terms = method.loss(batch)
    assert ("extra" in terms) == (objective not in ("clip", "cl2l"))
    terms["loss"].backward()
    silent = {name for name, p in method.named_parameters() if p.requires_grad and p.grad is None}
    assert not silent
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
    if objective == "byolip":
        assert not any(p.requires_grad for p in method.momentum.parameters())


def test_terms_are_put_together_as_the_sheet_says() -> None:
    method = _method(objective="swalip")
    terms = method.loss(_batch(method))
    whole = 2 * (terms["global"] + 2 * terms["local"]) / 3 + 0.2 * terms["extra"]
    torch.testing.assert_close(terms["loss"], whole)
    assert method.config.smoothing == 0
    plain = _method(objective="clip", combine="avg")
    terms = plain.loss(_batch(plain))
    assert set(terms) == {"loss", "scale"}
    with pytest.raises(UserError, match="written for 2 strong views"):
        _method(objective="swalip", num_augs=3)
    child = _method(objective="barlip", separate_proj_child=True)
    assert child.extra_local is not None
    assert child.loss(_batch(child))["extra"] > 0


def test_byolip_s_copy_moves_by_parameters_alone() -> None:
    method = _method(objective="byolip")
    old = {n: p.clone() for n, p in method.momentum.average.named_parameters()}
    buffers = {n: b.clone() for n, b in method.momentum.average.named_buffers()}
    with torch.no_grad():
        for p in method.model.parameters():
            p.add_(0.1)
        method.model.image(torch.randn(4, 3, 16, 16))  # moves the trained network's statistics
    method.after_step()
    new = dict(method._followed().named_parameters())
    for name, p in method.momentum.average.named_parameters():
        torch.testing.assert_close(p, 0.99 * old[name] + 0.01 * new[name], rtol=1e-6, atol=1e-7)
    for name, b in method.momentum.average.named_buffers():
        torch.testing.assert_close(b, buffers[name])


def test_cached_gradients_are_the_plain_step_s() -> None:
    found = []
    for pieces in (0, 5):
        method = _method("clip", encoder="vit_tiny_patch16_224", image_size=16, pieces=pieces)
        method.loss(_batch(method))["loss"].backward()
        found.append([p.grad for p in method.parameters() if p.grad is not None])
    for plain, cached in zip(*found, strict=True):
        torch.testing.assert_close(cached, plain, rtol=1e-4, atol=1e-6)


def test_cached_gradients_are_exact_with_dropout_and_with_a_last_piece_of_one_row(monkeypatch) -> None:
    """As if each piece went through the towers once and all that it needs were kept."""
    options = {"objective": "byolip", "text_dropout": 0.3, "drop_path": 0.3, "dropout_place": "residual"}
    found = []
    for forward in (
        caching.cached_forward,
        lambda module, x, n, *more: torch.cat([module(p, *more) for p in x.split(n)]),
    ):
        monkeypatch.setattr(_dual, "cached_forward", forward)
        method = _method(**options, encoder="resnet10-narrow", pieces=11).double().train()
        batch = {k: v.double() if v.is_floating_point() else v for k, v in _batch(method).items()}
        torch.manual_seed(5)
        method.loss(batch)["loss"].backward()
        found.append([p.grad for p in method.parameters() if p.grad is not None] + list(method.buffers()))
    assert len(found[0]) == len(found[1])
    for cached, plain in zip(*found, strict=True):
        torch.testing.assert_close(cached, plain, rtol=1e-12, atol=1e-12)


def _rows() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    image, text = (torch.randn(8, 4, generator=g, dtype=torch.float64) for _ in range(2))
    return image, text


def one_of_two() -> dict:
    """Loss and gradients of this process's four rows, with gradient into gathered keys and without."""
    found = {}
    for gather_grad in (True, False):
        method = _method("clip", gather_grad=gather_grad)
        image, text = (x[4 * rank() : 4 * rank() + 4].clone().requires_grad_() for x in _rows())
        loss = method.contrast(image, text, temperature=0.2)
        loss.backward()
        found[gather_grad] = loss.detach(), image.grad, text.grad
    return found


@pytest.mark.slow
def test_two_processes_gather_keys_with_their_gradient_or_without() -> None:
    found = by_two(one_of_two, joined=True)
    image, text = (x.requires_grad_() for x in _rows())
    whole = objectives.clip(image, text, temperature=0.2)
    whole.backward()
    for gather_grad in (True, False):
        mean = (found[0][gather_grad][0] + found[1][gather_grad][0]) / 2
        torch.testing.assert_close(mean, whole.detach(), rtol=0, atol=1e-12)
    for n in range(2):
        own = slice(4 * n, 4 * n + 4)
        for side, x in ((1, image), (2, text)):  # processes average their gradients: half of each is the whole's
            torch.testing.assert_close(found[n][True][side] / 2, x.grad[own], rtol=0, atol=1e-12)
        query, key = (x.detach()[own].clone().requires_grad_() for x in (image, text))
        objectives.clip_sharded(query, key, image.detach(), text.detach(), first=4 * n, temperature=0.2).backward()
        torch.testing.assert_close(found[n][False][1], query.grad, rtol=0, atol=1e-12)
        assert (found[n][False][1] / 2 - image.grad[own]).abs().max() > 1e-3


def test_a_class_is_the_mean_of_its_prompts_and_prompts_come_by_name_or_file(tmp_path: Path) -> None:
    method, templates = _method("clip").eval(), ("a photo of a {}.", "the {}", "{}")
    each = [[method.embed_texts([t.replace("{}", name)])[0] for t in templates] for name in ("cat", "red dog")]
    expected = torch.stack([torch.nn.functional.normalize(torch.stack(rows).mean(0), dim=0) for rows in each])
    torch.testing.assert_close(method.embed_classes(["cat", "red dog"], templates), expected)
    with pytest.raises(UserError, match=r"write \{\} where the class goes"):
        method.embed_classes(["cat"], ["a cat"])
    (tmp_path / "p.txt").write_text("a scan of {}\n\n{} seen from above\n")
    assert prompts(str(tmp_path / "p.txt")) == ("a scan of {}", "{} seen from above")
    assert prompts("plain") == ("a photo of a {}.",)
    (tmp_path / "p.txt").write_text("a scan\n")
    with pytest.raises(UserError, match=r"has no \{\} where the class goes"):
        prompts(str(tmp_path / "p.txt"))
    pytest.importorskip("open_clip")
    assert (len(prompts("clip")), prompts("clip")[0]) == (80, "a bad photo of a {}.")


def test_presets_and_defaults_are_the_paper_s() -> None:
    config = methods.get("clip-baselines").config_class()
    assert (config.encoder, config.dim, config.num_augs, config.smoothing, config.lr) == ("resnet50", 256, 2, 0.1, 3e-3)
    assert (config.barlip_widths, config.siam_widths, config.barlip_lambda) == ("3000-3000-8192", "2048-128", 5e-3)
    heads = methods.clip_baselines.ModalityHeads(2048, 512, "siamlip", [2048, 128])
    assert sum(p.numel() for p in heads.image.parameters()) == 2048 * 2048 + 2 * 2048 + 2048 * 128
    assert sum(p.numel() for p in heads.image_to_text.parameters()) == 128 * 2048 + 2 * 2048 + 2048 * 128 + 128
    barlip = methods.clip_baselines.ModalityHeads(512, 512, "barlip", [3000, 3000, 8192])
    assert sum(p.numel() for p in barlip.text.parameters()) == sum(
        (a * b + b + 2 * b) for a, b in ((512, 3000), (3000, 3000), (3000, 8192))
    )


@pytest.mark.slow
def test_a_resumed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    options = SMALL | {"objective": "byolip", "steps": 10, "batch_size": 16, "preset": "laptop", "quiet": True}
    whole, cut = cut_and_whole("clip-baselines", tmp_path, options, "scenes?train=40&test=8&side=20")
    assert any(name.startswith("momentum.") for name in whole)
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        assert torch.equal(torch.as_tensor(cut[name]), torch.as_tensor(value)), name


@pytest.mark.slow
def test_a_resumed_fine_tuning_ends_in_the_same_mixture(tmp_path: Path) -> None:
    data, options = "scenes?train=40&test=8&side=20", TINY | {"batch_size": 8, "preset": "laptop", "quiet": True}
    start = selftaught.train("clip", data, out=tmp_path / "start", steps=4, **options)
    more = {
        "init": str(start.path),
        "held_out": 0.2,
        "patience": 3,
        "interpolate": 0.5,
        "freeze_norms": True,
        "pieces": 3,
    }
    whole, cut = cut_and_whole("clip", tmp_path, options | more, data, steps=10)
    assert all(torch.equal(torch.as_tensor(cut[name]), torch.as_tensor(value)) for name, value in whole.items())
    kept = [load_file(tmp_path / name / "encoder.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_what_every_named_protocol_needs_is_seen_before_the_first_one_runs(tmp_path: Path, capsys) -> None:
    scenes = open_source("scenes?train=16&test=4&side=20", split="all")
    for i in range(len(scenes)):  # classes, and no captions
        place = tmp_path / "classes" / str(int(scenes.labels[i]) % 2)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scenes.read(i)).save(place / f"{i}.png")
        (tmp_path / "flat").mkdir(exist_ok=True)
        Image.fromarray(scenes.read(i)).save(tmp_path / "flat" / f"{i}.png")
        (tmp_path / "flat" / f"{i}.txt").write_text("a picture")
    run = tmp_path / "run"
    selftaught.train("clip", "scenes?train=16&test=4&side=20", out=run, steps=1, batch_size=8, quiet=True, **TINY)
    capsys.readouterr()
    for protocols, data, said in (
        ("zero-shot,text-retrieval", "classes", "text-retrieval needs captions"),
        ("text-retrieval,zero-shot", "flat", "zero-shot needs named classes"),
        ("text-retrieval,knn", "flat", "knn needs labels"),
    ):
        assert main(["evaluate", str(run), "--data", str(tmp_path / data), "--protocol", protocols]) == 2
        told = capsys.readouterr()
        assert said in told.err
        assert not any(f"{name}: this" in told.out + told.err for name in protocols.split(",")), "none has begun"
    assert not list(run.rglob("evaluation.json"))


def test_a_folder_of_one_s_own_from_training_to_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    scenes = open_source("scenes?train=40&test=8&side=20", split="all")
    for i in range(48):
        kind = (scenes.classes or [])[int(scenes.labels[i])].replace(" ", "_")
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scenes.read(i)).save(folder / kind / f"{i}.png")
        (folder / kind / f"{i}.txt").write_text(scenes.sample(i, ["text"])["text"])
    run = selftaught.train(
        "clip", folder, out=tmp_path / "run", preset="laptop", steps=3, quiet=True, batch_size=16, **TINY
    )
    opened: list[str] = []
    monkeypatch.setattr(
        image_text, "open_source", lambda *a, **more: opened.append(more["split"]) or open_source(*a, **more)
    )
    found = run.evaluate(protocols=["zero-shot", "text-retrieval"])
    assert opened == ["all", "test"], "what the check opened is not opened again"
    assert 0 <= found["zero-shot"]["this"]["accuracy"].mean <= 1
    assert set(found["text-retrieval"]) == {"this", "random"}
    assert run.apply(folder, tmp_path / "e.npy") == 48
    rows = np.load(tmp_path / "e.npy")
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)

    assert main(["search", str(tmp_path / "run"), str(folder), "a red square", "--count", "3"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 3
    query = run.method.embed_texts(["a red square"]).numpy()[0]
    names = list(open_source(folder, split="all").names)
    order = np.argsort(-(rows @ query))
    assert [line.split("  ")[1] for line in lines] == [names[i] for i in order[:3]]
    again = selftaught.load(tmp_path / "run").search(folder, "a red square", count=3)
    assert [one.name for one in again] == [names[i] for i in order[:3]]
    Image.fromarray(scenes.read(0)).save(folder / "new.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (gone := folder / names[0]).unlink()
    said: list[str] = []
    found_now = run.search(folder, "anything", count=99, say=said.append)
    assert any(one.name == "new.png" for one in found_now)
    assert not any(one.name in ("broken.png", str(gone.relative_to(folder))) for one in found_now)
    assert said[0] == "2 new or changed of 49 pictures: embedding them"
    assert said[1].startswith("could not be used: broken.png")
    (folder / "broken.png").unlink()
    said.clear()
    assert len(run.search(folder, "anything", count=99, say=said.append)) == 48
    assert not said  # all is known
    before = {one.name: one.score for one in run.search(folder, "anything", count=99)}
    Image.fromarray(255 - scenes.read(0)).save(folder / "new.png")  # another picture by the same name
    after = {one.name: one.score for one in run.search(folder, "anything", count=99, say=said.append)}
    assert [name for name in after if after[name] != pytest.approx(before[name], abs=1e-6)] == ["new.png"]
    assert said == ["1 new or changed of 48 pictures: embedding them"]
    said.clear()
    for file in (tmp_path / "run" / "index").glob("*.npz"):
        file.write_bytes(file.read_bytes()[:200])  # damaged: made anew
    assert len(run.search(folder, "anything", count=99, say=said.append)) == 48
    assert said == ["48 new or changed of 48 pictures: embedding them"]

    table = tmp_path / "classes.csv"
    assert main(["classify", str(tmp_path / "run"), str(folder), "--classes", "red,blue", "--out", str(table)]) == 0
    lines = table.read_text().splitlines()
    assert lines[0] == "name,class,red,blue"
    assert len(lines) == 49
    assert sum(map(float, lines[1].split(",")[2:])) == pytest.approx(1, abs=1e-5)
    run.classify(folder, ["red", "green"], out=table)
    assert table.read_text().startswith("name,class,red,green"), "a table of classify is written anew"
    table.write_text("my,own\n1,2\n")
    with pytest.raises(UserError, match="is there already, and no table of classify"):
        run.classify(folder, ["red", "green"], out=table)
    assert table.read_text() == "my,own\n1,2\n"
    for wrong in (["classify", str(tmp_path / "run"), str(folder), "--classes", "red"],
                  ["search", str(tmp_path / "run"), str(folder), " "]):  # fmt: skip
        assert main(wrong) == 2


def test_faiss_and_numpy_find_the_same_rows() -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(50, 6)).astype(np.float32), rng.normal(size=(3, 6)).astype(np.float32)
    one, two = nearest_rows(vectors, queries, 7), nearest_rows(vectors, queries, 7, exact=True)
    np.testing.assert_array_equal(one[1], two[1])
    np.testing.assert_allclose(one[0], two[0], rtol=1e-5)
    assert nearest_rows(vectors, queries, 99, exact=True)[1].shape == (3, 50)


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["clip", "clip-baselines"])
def test_it_learns_to_find_captions(slug: str, tmp_path: Path) -> None:
    more = {"flip": 0.0, "strong_crop": 0.6} if slug == "clip-baselines" else {}
    run = selftaught.train(
        slug,
        "scenes?train=500&test=100",
        out=tmp_path / "run",
        preset="laptop",
        steps=28,
        batch_size=64,
        quiet=True,
        **more,
    )
    found = run.evaluate(protocols=["text-retrieval"], baselines=False)
    assert found["text-retrieval"]["this"]["image_to_text_r1"].mean > 0.25  # 0.11 after two steps


def test_a_run_is_fine_tuned_safely(tmp_path: Path) -> None:
    start = selftaught.train(
        "clip", "scenes?train=40&test=8&side=20", out=tmp_path / "start", preset="laptop", steps=2, quiet=True,
        batch_size=16, **TINY,
    )  # fmt: skip
    options = {"init": str(tmp_path / "start"), "preset": "fine-tune", "steps": 4, "batch_size": 16, "lr": 1e-2}
    data, runs = "scenes?train=60&test=8&side=20&draw=3", {}
    for share in (1.0, 0.25, 0.0):
        out = tmp_path / f"{share}"
        runs[share] = selftaught.train("clip", data, out=out, interpolate=share, quiet=True, **options)
    one = runs[1.0]
    assert {name: one.config["options"][name] for name in TINY} == TINY  # the run's towers, not the preset's
    assert one.config["data"]["mean"] == start.config["data"]["mean"]
    began, tuned, mixed, none = (run.encoder.state_dict() for run in (start, *runs.values()))
    moved = [name for name in began if not torch.equal(began[name], tuned[name])]
    norms = ("ln_", "running_", "num_batches")
    assert moved
    assert not [name for name in moved if any(word in name for word in norms)]
    for name in moved:
        torch.testing.assert_close(mixed[name], began[name] + 0.25 * (tuned[name] - began[name]))
    assert all(torch.equal(began[name], none[name]) for name in began)
    assert "kept_loss" in (tmp_path / "1.0" / "state.json").read_text()
    judged = one.evaluate(protocols=["text-retrieval", "zero-shot"])
    before = start.evaluate(data, protocols=["text-retrieval", "zero-shot"], baselines=False)
    for name, kinds in judged.items():
        assert list(kinds) == ["this", "original", "random"], "fine-tuning is judged beside its start"
        assert kinds["original"].numbers == before[name]["this"].numbers
    shutil.rmtree(tmp_path / "start")
    assert list(one.evaluate(protocols=["zero-shot"])["zero-shot"]) == ["this", "random"]
    small = {"encoder": "cnn-small", "image_size": 16, "steps": 1, "batch_size": 8, "quiet": True}
    images = selftaught.train("simclr", data, out=tmp_path / "images", **small)
    tower = {"init": str(images.path), "preset": "laptop", "steps": 1, "batch_size": 16} | TINY
    half = selftaught.train("clip", data, out=tmp_path / "half", quiet=True, **tower)
    assert list(half.evaluate(protocols=["zero-shot"])["zero-shot"]) == ["this", "random"], "its start knew no words"
    with pytest.raises(UserError, match="held-out"):
        methods.get("clip")(**TINY, patience=2)


def test_fine_tuning_ends_when_retrieval_gets_no_better_and_keeps_the_best(tmp_path: Path) -> None:
    data, tiny = "scenes?train=60&test=8&side=20", {"quiet": True, "batch_size": 16} | TINY
    start = selftaught.train("clip", data, out=tmp_path / "start", preset="laptop", steps=30, **tiny)
    run = selftaught.train(
        "clip", data, out=tmp_path / "run", init=str(start.path), preset="fine-tune", epochs=40, batch_size=16,
        lr=3e-2, patience=2, held_out=0.4, interpolate=1.0, quiet=True, log_every=1,
    )  # fmt: skip
    with run.layout.metrics.open(newline="") as file:
        seen = [float(row["val_loss"]) for row in csv.DictReader(file) if row.get("val_loss")]
    assert 2 < len(seen) < 40
    assert len(seen) - 1 - seen.index(min(seen)) == 2, "two epochs without better retrieval end it"
    kept = json.loads((tmp_path / "run" / "state.json").read_text())["stages"]["train"]["kept_loss"]
    assert kept == pytest.approx(min(seen), abs=1e-6)


def test_held_out_pairs_are_judged_by_retrieval() -> None:
    method = _method("clip").eval()
    batch = {name: x[:4].clone() for name, x in _batch(method).items() if name.endswith("global")}
    batch["text_global"][:, 1] = torch.arange(1, 5)  # four texts
    image, text = torch.eye(8)[[0, 1, 2, 3]], torch.eye(8)[[0, 1, 3, 2]]
    method.model.embed_images, method.model.embed_texts = (lambda f: image), (lambda f: text)
    assert method.validate(batch)["loss"] == pytest.approx(0.5)
    text[:] = image[0]  # the first image alone fits every text: of the texts one is right, ties of images are wrong
    assert method.validate(batch)["loss"] == pytest.approx(1 - (0 + 0.25) / 2)


def test_held_out_images_of_one_text_share_it() -> None:
    method = _method("clip").eval()
    batch = {name: x[:4].clone() for name, x in _batch(method).items() if name.endswith("global")}
    batch["text_global"] = batch["text_global"][[0, 0, 2, 2]]
    batch["text_global"][2:, 1] = 1 + batch["text_global"][0, 1] % 9  # two texts, as of images in two class folders
    image, text = torch.eye(8)[[0, 0, 1, 1]], torch.eye(8)[[0, 0, 1, 1]]
    method.model.embed_images, method.model.embed_texts = (lambda f: image), (lambda f: text)
    assert method.validate(batch)["loss"] == 0, "every image by its class: it was 1, whatever was learnt"
    image[1] = image[2]  # one image of the first class looks like the second's: the text still finds the other
    image[0] *= 0.9
    assert method.validate(batch)["loss"] == pytest.approx(1 - (0.75 + 0.5) / 2)


def coloured(folder: Path, texts: list[str]) -> Path:
    """A folder of pictures in colours of their own, a text beside each."""
    folder.mkdir()
    for i, text in enumerate(texts):
        Image.new("RGB", (20, 20), (6 * i, 0, 90)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(text)
    return folder


def test_retrieval_is_judged_on_the_pairs_held_out(tmp_path: Path) -> None:
    folder = coloured(tmp_path / "pairs", [f"colour {i}" for i in range(40)])
    options = {"preset": "laptop", "steps": 2, "batch_size": 4, "quiet": True, "held_out": 0.25} | TINY
    run = selftaught.train("clip", folder, out=tmp_path / "run", **options)
    found = run.evaluate(protocols=["text-retrieval"], baselines=False)["text-retrieval"]["this"]
    assert found.note == "among 10 texts and 10 images; on the held-out pairs that chose the weights"


def test_captions_that_differ_in_capitals_and_blanks_are_one_text(tmp_path: Path) -> None:
    folder = coloured(tmp_path / "pairs", ["A red car", "a  red CAR", "a blue car", "a green car"])
    options = {"preset": "laptop", "steps": 1, "batch_size": 4, "quiet": True} | TINY
    run = selftaught.train("clip", folder, out=tmp_path / "run", **options)
    found = run.evaluate(protocols=["text-retrieval"], baselines=False)["text-retrieval"]["this"]
    assert found.note.startswith("among 3 texts and 4 images")


def test_classes_that_read_alike_are_not_told_apart_by_words(tmp_path: Path) -> None:
    folder = tmp_path / "classes"
    for name in ("red_car", "red-car", "blue"):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (20, 20), (60 * i, 0, 90)).save(folder / name / f"{i}.png")
    options = {"preset": "laptop", "steps": 1, "batch_size": 4, "quiet": True} | TINY
    run = selftaught.train("clip", folder, out=tmp_path / "run", **options)
    with pytest.raises(UserError, match=r"two classes of .* are called 'red car' in words; rename one"):
        run.evaluate(protocols=["zero-shot"])
    assert "zero-shot" not in run.evaluate(baselines=False)


def test_retrieval_says_when_it_is_judged_on_what_it_learnt_from(tmp_path: Path) -> None:
    folder = coloured(tmp_path / "pairs", [f"colour {i}" for i in range(20)])
    options = {"preset": "laptop", "steps": 1, "batch_size": 4, "quiet": True} | TINY
    own = selftaught.train("clip", folder, out=tmp_path / "own", **options)
    assert own.summary()[1] == f"to know how good it is: selftaught evaluate {tmp_path / 'own'}", "it has captions"
    found = own.evaluate(protocols=["text-retrieval"], baselines=False)["text-retrieval"]["this"]
    assert found.note == "among 20 texts and 20 images; on the pairs that it learnt from"
    assert own.summary()[1].startswith("image to text R@1 on the pairs that it learnt from: this model")
    assert "on the pairs that it learnt from" in own.report().read_text(encoding="utf-8").partition("<table")[0]
    divided = selftaught.train("clip", folder, out=tmp_path / "divided", by="ratio:0.25", **options)
    found = divided.evaluate(protocols=["text-retrieval"], baselines=False)["text-retrieval"]["this"]
    assert found.note == "among 5 texts and 5 images", "those that were kept away from training, and no others"


@pytest.mark.parametrize(("slug", "option"), [("clip", "context"), ("clip-baselines", "context")])
def test_captions_that_are_cut_are_counted(slug: str, option: str, tmp_path: Path) -> None:
    texts = ["a very " * (3 * (i > 5)) + "red square\none that is blue\n" for i in range(8)]
    folder = coloured(tmp_path / "pairs", texts)
    options = {"preset": "laptop", "steps": 1, "batch_size": 4} | TINY
    said = "2 of 16 texts looked at are longer than 8 tokens and are cut (--context 10 takes all)"
    assert said in selftaught.rehearse(slug, folder, **options | {option: 8})
    assert not any("are cut" in line for line in selftaught.rehearse(slug, folder, **options | {option: 10}))

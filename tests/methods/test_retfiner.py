"""RetFiner: its four objectives as wired, what it leaves alone, refining a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import selftaught
from selftaught import methods, views
from selftaught.data import open_source
from selftaught.engine.loader import DataModule
from selftaught.errors import UserError
from tests.methods.resuming import cut_and_whole

TINY = {
    "encoder": "vit-nano", "image_size": 32, "vocabulary": 128, "text_length": 12, "text_width": 16, "text_heads": 2,
    "text_layers": 1, "dim": 8, "dropout": 0.0,
}  # fmt: skip


def _method(**options):
    torch.manual_seed(0)
    return methods.get("retfiner")(**TINY | options, channels=1)


def _batch(method, rows: int = 8) -> dict:
    source = open_source(f"bscans?train={rows}&test=1&side=40", split="train")
    data = DataModule(source, method, batch_size=rows, workers=0)
    (batch,) = list(data.train_dataloader())[:1]
    return method.on_after_batch_transfer(batch)


def test_generated_slices_show_what_their_reports_say() -> None:
    source = open_source("bscans?train=300&test=8", split="train")
    assert source.generated
    assert source.read(0).shape == (64, 64, 1)
    said = [source.sample(i, ["text"])["text"] for i in range(300)]
    assert len(set(said)) == 13
    dark = {c: [] for c in range(3)}
    for i in range(120):
        dark[int(source.labels[i])].append((source.read(i)[24:42, 8:56] < 40).mean())
    assert np.mean(dark[2]) > np.mean(dark[0]) + 0.02
    with pytest.raises(UserError, match="bscans: side=8"):
        open_source("bscans?side=8")


def test_the_terms_add_up_and_reach_every_part() -> None:
    method = _method()
    terms = method.loss(_batch(method))
    assert set(terms) == {"mlm", "gm", "itc", "itm", "loss"}
    torch.testing.assert_close(terms["loss"], terms["mlm"] + terms["gm"] + terms["itc"] + terms["itm"])
    terms["loss"].backward()
    silent = {n for n, p in method.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert all("key.bias" in n or "qkv.bias" in n or "token_type" in n for n in silent), silent
    weighed = _method(losses="itc+itm", itm_weight=0.5)
    terms = weighed.loss(_batch(weighed))
    assert set(terms) == {"itc", "itm", "loss"}
    torch.testing.assert_close(terms["loss"], terms["itc"] + 0.5 * terms["itm"])
    assert torch.isfinite(_method(equal_reports="left-out").loss(_batch(method))["loss"])


def test_options_do_what_they_say() -> None:
    learnt = _method(learn_temperature=True)
    assert float(learnt.tau.detach()) == pytest.approx(0.07)
    with torch.no_grad():
        learnt.log_scale.fill_(9.0)
        assert float(learnt.tau) == pytest.approx(0.01)
    frozen = _method(frozen_blocks=1)
    assert not any(p.requires_grad for p in frozen.encoder.model.blocks[0].parameters())
    assert all(p.requires_grad for p in frozen.encoder.model.blocks[1].parameters())
    with pytest.raises(UserError, match="frozen_blocks=99"):
        _method(frozen_blocks=99)
    plan = methods.get("retfiner")(**TINY | {"patience": 3}).stage_plan("train")
    assert (plan.keep, plan.patience, plan.validation) == ("best", 3, 0.1)
    batch = {"views": [torch.randn(2, 1, 32, 32)]}
    width = _method().eval().encoder.dim
    shapes = {probe: _method(probe=probe).eval().features(batch).shape[1] for probe in ("concat", "cls", "mean")}
    assert shapes == {"concat": 2 * width, "cls": width, "mean": width}


def test_objectives_are_weighed_by_learnt_uncertainty() -> None:
    method = _method(uncertainty=True, losses="itc+itm", itm_weight=0.5)
    with torch.no_grad():
        method.log_variances.copy_(torch.tensor([0.3, -0.4]))
    terms = method.loss(_batch(method))
    s = method.log_variances.detach()
    by_hand = (-s[0]).exp() * terms["itc"] + s[0] + (-s[1]).exp() * 0.5 * terms["itm"] + s[1]
    torch.testing.assert_close(terms["loss"], by_hand)
    terms["loss"].backward()
    assert method.log_variances.grad.abs().min() > 0


def test_a_saved_bert_brings_its_words_and_its_head(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "fluid", "retina", "##l", "thick"]
    words += [f"w{k}" for k in range(70)]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        max_position_embeddings=32, hidden_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.BertForMaskedLM(config).eval()
    torch.nn.init.normal_(theirs.cls.predictions.bias)
    theirs.save_pretrained(tmp_path)
    method = _method(text_encoder=f"hf:{tmp_path}").eval()
    tokens = torch.from_numpy(views.tokeniser(method.pieces)(["No retinal fluid", "thick"], 8))
    assert tokens.tolist()[0] == [2, 5, 7, 8, 6, 3, 0, 0]
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=(tokens != 0).long()).logits
        found = method.language(method.bert(tokens), method.bert)
    torch.testing.assert_close(found[tokens != 0], expected[tokens != 0], rtol=1e-4, atol=1e-5)
    assert method.hiding == {"mask": 4, "low": 5, "high": len(words) - 1}
    terms = method.train().loss(_batch(method))
    terms["loss"].backward()
    assert torch.isfinite(terms["loss"])
    assert method.bert.encoder.layer[0].crossattention.output.dense.weight.grad.abs().sum() > 0
    with pytest.raises(UserError, match=r'text_encoder="hf:.*/nowhere": not at hand'):
        _method(text_encoder=f"hf:{tmp_path}/nowhere")


@pytest.mark.slow
def test_a_resumed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    data, options = "bscans?train=40&test=4&side=40", {"batch_size": 8, "preset": "laptop", "quiet": True}
    start = selftaught.train("simclr", data, out=tmp_path / "start", steps=2, encoder="cnn-small", **options)
    small = {name: value for name, value in TINY.items() if name not in ("encoder", "image_size", "dropout")}
    more = {"init": str(start.path), "uncertainty": True, "learn_temperature": True, "patience": 2}
    whole, cut = cut_and_whole("retfiner", tmp_path, options | small | more, data)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(torch.as_tensor(cut[name]), torch.as_tensor(value)) for name, value in whole.items())


@pytest.mark.slow
def test_it_refines_a_run(tmp_path: Path) -> None:
    data = "bscans?train=120&test=60&side=32"
    options = {"encoder": "cnn-small", "image_size": 32, "augment": "grey", "preset": "laptop", "quiet": True}
    start = selftaught.train("simclr", data, out=tmp_path / "start", steps=4, batch_size=32, **options)
    run = selftaught.train(
        "retfiner", init=str(start.path), out=tmp_path / "run", preset="laptop", steps=12, quiet=True
    )
    assert run.config["options"]["encoder"] == "cnn-small"
    assert run.config["data"]["mean"] == start.config["data"]["mean"]
    found = run.evaluate(protocols=["linear"])["linear"]
    assert 0 < found["this"]["accuracy"].mean <= 1
    assert run.apply(data, tmp_path / "e.npy") == 180
    assert run.export("safetensors").exists()
    assert run.report().exists()
    moved = [
        float((a - b).abs().max())
        for a, b in zip(run.encoder.state_dict().values(), start.encoder.state_dict().values(), strict=True)
    ]
    assert max(moved) > 1e-4
    with pytest.raises(UserError, match="give it with init"):
        selftaught.train("retfiner", data, out=tmp_path / "none", steps=1, quiet=True)


def test_reports_that_are_cut_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(4):
        np.save(folder / f"{i}.npy", np.full((20, 20), 9 * i, np.uint8))
        (folder / f"{i}.txt").write_text("fluid " * (2 + i))
    kind = methods.get("retfiner")
    source = kind.takes(open_source(folder, split="all"))
    kind.arranged({"data": source}, kind.config_class(text_length=5, text_layers=1))
    assert source.notes[-1] == "2 of 4 texts looked at are longer than 5 tokens and are cut (--text-length 7 takes all)"

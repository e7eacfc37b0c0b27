"""GOPro: prompts of style and content on a frozen CLIP, its losses, its baselines, base-to-new."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import selftaught
from selftaught import methods, objectives, views
from selftaught.data import open_source
from selftaught.engine.loader import DataModule
from selftaught.errors import UserError
from selftaught.evaluation import base_to_new
from selftaught.networks import StyleContent, token_statistics
from selftaught.networks.clip_towers import image_blocks
from tests.methods.resuming import cut_and_whole
from tests.methods.test_clip import TINY

MODES = ("gopro", "coop", "cocoop", "linear", "zero-shot")
CLASSES = ["red square", "blue square", "red circle"]


def _method(encoder: str = "vit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    told = json.dumps({"method": "clip", "options": TINY | {"encoder": encoder, "context": 12}})
    given = {"original": told, "class_names": CLASSES, "image_size": 16, "crop": 0.6} | options
    return methods.get("gopro")(**given, classes=len(CLASSES))


def _batch(method, rows: int = 6) -> dict:
    source = open_source(f"scenes?train=60&test=1&side=20&classes={','.join(CLASSES)}", split="train")
    data = DataModule(source, method, batch_size=rows, workers=0)
    (batch,) = list(data.train_dataloader())[:1]
    return method.on_after_batch_transfer(batch)


def test_statistics_equal_their_formula_and_are_finite_at_equal_tokens() -> None:
    h = torch.randn(2, 5, 3, dtype=torch.float64)
    mean, deviation = token_statistics(h)
    for b in range(2):
        for w in range(3):
            values = h[b, :, w].tolist()
            mu = sum(values) / 5
            assert mean[b, w].item() == pytest.approx(mu)
            assert deviation[b, w].item() == pytest.approx(math.sqrt((sum((v - mu) ** 2 for v in values) + 2.3e-8) / 5))
    turned = token_statistics(h[:, torch.randperm(5)])
    torch.testing.assert_close(turned[1], deviation)
    torch.testing.assert_close(token_statistics(3 * h)[1], 3 * deviation, rtol=1e-6, atol=1e-6)
    flat = torch.ones(1, 4, 2, requires_grad=True)
    token_statistics(flat)[1].sum().backward()
    assert torch.isfinite(flat.grad).all()
    with pytest.raises(UserError, match="tokens are"):
        token_statistics(h[0])


def test_style_and_content_make_the_shift_of_the_sheet() -> None:
    torch.manual_seed(0)
    net = StyleContent([4, 6, 6], 5).double()
    hidden = [torch.randn(2, 7, w, dtype=torch.float64) for w in (4, 6, 6)]
    rows = []
    for k, h in enumerate(hidden):
        mean, deviation = token_statistics(h.float())
        rows.append((net.style[k](((mean + deviation) / 2).double()) + net.content[k](mean.double())) / 2)
    expected = sum(net.rho[0].weight[0, k] * rows[k] for k in range(3)) + net.rho[0].bias
    found = net.float()([h.float() for h in hidden])
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    count = sum(p.numel() for p in StyleContent([768] * 12, 512).parameters())
    assert count == 24 * (768 * 512 + 512) + 13
    assert count + 4 * 512 + 512 * 513 + 1024 == 9_715_213, "about 9.7 M, as the sheet says"
    with pytest.raises(UserError, match="both are off"):
        StyleContent([4], 5, style=False, content=False)


def test_losses_equal_their_formulas() -> None:
    g = torch.Generator().manual_seed(0)
    t, u, v = (torch.randn(4, 3, 5, generator=g, dtype=torch.float64) for _ in range(3))
    literal = sum(((t - o) ** 2).sum().item() / (4 * 3 * 5) for o in (u, v))
    assert objectives.gopro_semantic(t, u, v).item() == pytest.approx(literal)
    same = t.clone().requires_grad_()
    zero = objectives.gopro_semantic(same, same, same)
    (gradient,) = torch.autograd.grad(zero, same)
    assert zero.item() == 0
    assert not gradient.any()
    logits, labels = torch.randn(4, 3, generator=g, dtype=torch.float64), torch.tensor([0, 2, 1, 0])
    a, b = (F.normalize(torch.randn(4, 6, generator=g, dtype=torch.float64), dim=1) for _ in range(2))
    con = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(4):
            row = [math.exp(float(x[i] @ y[j]) / 0.1) for j in range(4)]
            row += [math.exp(float(x[i] @ x[j]) / 0.1) for j in range(4) if j != i]
            con -= math.log(math.exp(float(x[i] @ y[i]) / 0.1) / sum(row)) / 8
    expected = F.cross_entropy(logits, labels).item() + literal + 0.1 * con
    assert objectives.gopro(logits, labels, t, u, v, a, b).item() == pytest.approx(expected, rel=1e-9)
    eye = torch.eye(8, dtype=torch.float64)[:4]
    terms = objectives.gopro_terms(logits, labels, t, u, v, eye, eye)
    assert terms["con"].item() == pytest.approx(math.log1p(6 * math.exp(-10)))


def test_silent_projectors_are_coop_and_coop_s_start_is_zero_shot_clip() -> None:
    gopro, coop = _method(), _method(mode="coop")
    coop.model.towers.load_state_dict(gopro.model.towers.state_dict())
    coop.model.context.load_state_dict(gopro.model.context.state_dict())
    for module in (*gopro.model.generator.style, *gopro.model.generator.content, *gopro.model.generator.rho):
        torch.nn.init.zeros_(module.weight)
        torch.nn.init.zeros_(module.bias)
    batch = {"views": [_batch(gopro)["original"]]}
    with torch.no_grad():
        torch.testing.assert_close(gopro.eval().predict(batch), coop.eval().predict(batch), rtol=1e-5, atol=1e-5)
        coop.model.context.begin(coop.model.towers)
        by_hand = coop.predict_words(batch, CLASSES, "a photo of a {}.")
        torch.testing.assert_close(coop.predict(batch), by_hand, rtol=1e-5, atol=1e-5)
        gopro.model.generator.rho[0].bias.fill_(0.3)
        f, hidden = gopro.model.towers.image(batch["views"][0])
        torch.testing.assert_close(gopro.model.shift(f, hidden), torch.full((len(f), 16), 0.3))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_reach_what_is_learnt_and_nothing_of_clip(mode: str) -> None:
    method = _method(mode=mode, encoder="vit_tiny_patch16_224" if mode == "gopro" else "cnn-small")
    before = {n: p.clone() for n, p in method.model.towers.named_parameters()}
    terms = method.train().loss(_batch(method))
    if mode != "zero-shot":
        terms["loss"].backward()
        learnt = list(method.trained_modules().named_parameters())
        assert learnt
        silent = {n for n, p in learnt if p.grad is None or not p.grad.abs().sum() > 0}
        assert silent <= {"projector.0.bias"}, silent  # a bias before BatchNorm
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in method.model.towers.named_parameters())
    assert not any(m.training for m in method.model.towers.modules())
    if mode == "gopro":
        torch.testing.assert_close(terms["loss"], terms["ce"] + terms["sem"] + 0.1 * terms["con"])


def test_pieces_and_options_change_no_more_than_they_say() -> None:
    small = {"encoder": "cnn-small"}
    whole, pieces = _method(pieces=0, **small), _method(pieces=4, **small)
    pieces.load_state_dict(whole.state_dict())
    batch = {"views": [_batch(whole)["original"]]}
    with torch.no_grad():
        torch.testing.assert_close(pieces.eval().predict(batch), whole.eval().predict(batch))
    assert len(_method(per_view_rho=True, **small).model.generator.rho) == 3
    assert _method(style=False, **small).model.generator.style is None
    assert _method(ctx_init="", n_ctx=6, **small).model.context.vectors.shape == (6, 16)
    for options in ({"view_kinds": "moco"}, {"project_logits": True}, {"sem_weight": 0.0}, {"con_weight": 0.0}):
        method = _method(**options | small)
        assert torch.isfinite(method.loss(_batch(method))["loss"])
    with pytest.raises(UserError, match="give it with init=RUN"):
        methods.get("gopro")(classes=3)


def test_blocks_are_found_in_every_kind_of_encoder() -> None:
    from selftaught import networks

    for name, count in (("vit_tiny_patch16_224", 12), ("resnet10-narrow", 4), ("cnn-small", 2)):
        assert len(image_blocks(networks.encoder(name, image_size=32))) == count


def test_open_clip_s_towers_are_open_clip() -> None:
    open_clip = pytest.importorskip("open_clip")
    from selftaught.networks.clip_towers import OpenCLIPTowers

    name = "ViT-S-32-alt/random"
    towers = OpenCLIPTowers(name)
    assert not list(towers.parameters())
    assert not towers.state_dict()
    tokens = open_clip.get_tokenizer("ViT-S-32-alt")(["a cat", "a dog asleep"])
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        f, hidden = towers.image(x)
        torch.testing.assert_close(f, F.normalize(towers._model.encode_image(x), dim=1))
        expected = F.normalize(towers._model.encode_text(tokens), dim=1)
        found = towers.text(towers.token_embedding(tokens), tokens.argmax(1))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert [h.shape[2] for h in hidden] == towers.widths
    assert hidden[0].shape[:2] == (2, 50)
    with pytest.raises(UserError, match="open_clip has no model 'ViT-none'"):
        OpenCLIPTowers("ViT-none")


def test_a_probe_is_judged_by_its_own_logits() -> None:
    method, names = _method(mode="linear").eval(), ["green ring", "blue square", "red circle", "red square"]
    batch = _batch(method)
    method._trainer = None
    given = {"views": [batch["original"]]}
    with torch.no_grad():
        found, own = method.predict_words(given, names), method.predict(given)
        words = _method(mode="zero-shot").eval().predict_words(given, names)
    torch.testing.assert_close(found[:, 1:], own[:, [1, 2, 0]])
    torch.testing.assert_close(found[:, 0], words[:, 0])


def test_base_to_new_is_counted_by_hand() -> None:
    logits = np.array([[3, 1, 5, 0], [0, 1, 2, 9], [0, 0, 1, 2], [9, 0, 3, 2]], dtype=float)
    found = base_to_new(logits, np.array([0, 1, 3, 2]), np.array([True, True, False, False]))
    assert found["accuracy"].mean == 0.25
    assert found["base"].mean == 1.0
    assert found["new"].mean == 1.0
    assert found["harmonic"].mean == 1.0
    assert set(base_to_new(logits, np.array([0, 1, 3, 2]), np.ones(4)).numbers) == {"accuracy"}


def test_augmix_mixes_and_keeps_what_it_should() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
    pipeline = views.Pipeline((views.AugMix(),))
    made = [views.render(image, pipeline, pipeline.sample(np.random.default_rng(s), 24, 20)) for s in range(8)]
    assert all(m.shape == image.shape and m.dtype == np.uint8 for m in made)
    assert len({m.tobytes() for m in made}) == 8
    near = np.mean([np.abs(m.astype(int) - image).mean() for m in made])
    assert 1 < near < 60
    flat = np.full((8, 8, 1), 7, np.uint8)
    assert views.render(flat, pipeline, pipeline.sample(np.random.default_rng(1), 8, 8)).shape == (8, 8, 1)
    with pytest.raises(UserError, match="AugMix"):
        views.AugMix(severity=0)


def test_halves_of_the_classes() -> None:
    base = open_source("scenes?train=80&test=20&classes=base", split="train")
    new = open_source("scenes?train=80&test=20&classes=new", split="train")
    whole = open_source("scenes?train=80&test=20", split="train")
    assert base.classes == (whole.classes or [])[:4]
    assert new.classes == (whole.classes or [])[4:]
    assert len(base) + len(new) == len(whole)
    assert all((base.classes or [])[base.sample(i)["label"]] in base.sample(i)["text"] for i in range(len(base)))
    with pytest.raises(UserError, match="has no class 'pink square'"):
        open_source("scenes?classes=pink square")


@pytest.mark.slow
def test_a_resumed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    data, options = "scenes?train=40&test=8&side=20", {"batch_size": 8, "preset": "laptop", "quiet": True}
    start = selftaught.train("clip", data, out=tmp_path / "start", steps=2, **options | TINY)
    whole, cut = cut_and_whole("gopro", tmp_path, options | {"init": str(start.path)}, data)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(torch.as_tensor(cut[name]), torch.as_tensor(value)) for name, value in whole.items())


@pytest.mark.slow
def test_it_adapts_a_run_and_is_judged_on_new_classes(tmp_path: Path) -> None:
    data = "scenes?train=200&test=60&side=20"
    options = TINY | {"steps": 20, "batch_size": 32, "preset": "laptop", "quiet": True, "context": 16}
    clip = selftaught.train("clip", data, out=tmp_path / "clip", **options)
    run = selftaught.train(
        "gopro", f"{data}&classes=base", init=str(clip.path), out=tmp_path / "run", preset="laptop", steps=8, quiet=True
    )
    assert run.method.config.class_names == (open_source(data).classes or [])[:4]
    frozen = dict(clip.method.model.state_dict())
    for name, value in run.method.model.towers.model.state_dict().items():
        torch.testing.assert_close(value.cpu(), frozen[name].cpu())
    found = run.evaluate(data, protocols=["base-to-new"])["base-to-new"]
    assert set(found) == {"this", "original"}
    assert set(found["this"].numbers) == {"accuracy", "base", "new", "harmonic"}
    shifted = run.evaluate(f"{data}&style=sketch&classes=base", protocols=["base-to-new", "classify"])
    assert set(shifted["base-to-new"]["this"].numbers) == {"accuracy"}
    more = {"protocols": ["cross-set"], "reference": f"{data}&style=sketch&classes=base,{data}&classes=new"}
    with pytest.raises(UserError, match="name them with reference"):
        run.evaluate(data, protocols=["cross-set"])
    crossed = run.evaluate(f"{data}&classes=base", **more)["cross-set"]
    assert set(crossed) == {"this", "original"}
    mean, *each = (number.mean for number in crossed["this"].numbers.values())
    assert list(crossed["this"].numbers)[1:] == ["scenes", "scenes (2)", "scenes (3)"]
    assert mean == pytest.approx((each[1] + each[2]) / 2)
    assert each[2] == pytest.approx(found["this"]["new"].mean)
    assert run.apply(f"{data}&classes=base", tmp_path / "p.parquet") > 0
    again = selftaught.load(run.path)
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(again.method.deliverable()(x), run.method.deliverable()(x))
    assert run.export("safetensors").exists()
    assert run.report().exists()
    onnx, many = pytest.importorskip("onnxruntime"), torch.rand(5, 3, 16, 16)
    session = onnx.InferenceSession(run.export("onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: many.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), run.method.eval().deliverable()(many), rtol=1e-3, atol=1e-4)
    zero = selftaught.train(
        "gopro", f"{data}&classes=base", init=str(clip.path), out=tmp_path / "zero", mode="zero-shot", preset="laptop",
        quiet=True,
    )  # fmt: skip
    assert zero.layout.read_state()["stages"]["train"]["steps"] == 1, "nothing to learn"
    both = zero.evaluate(data, protocols=["base-to-new"])["base-to-new"]
    assert both["this"]["new"].mean == both["original"]["new"].mean


def test_the_toy_of_the_sheet_halves_the_cross_entropy() -> None:
    """A small CLIP that knows eight colours; its prompts are fitted to 16 pictures of each in 100 steps."""
    torch.manual_seed(0)
    options = TINY | {"dim": 64, "text_width": 64, "context": 12}
    source = open_source("scenes?train=600&test=1&side=20&colours=8&shapes=1", split="train")
    clip = methods.get("clip")(**options, crop=0.9)
    _fit(clip, source, steps=80, rows=32, lr=5e-4)
    labels, classes = np.asarray(source.labels), source.classes or []
    shots = source.subset(np.concatenate([np.flatnonzero(labels == k)[:16] for k in range(8)]))
    assert len(shots) == 8 * 16
    told = json.dumps({"method": "clip", "options": options})
    method = methods.get("gopro")(original=told, class_names=classes, image_size=16, crop=0.9, classes=8)
    method.model.towers.model.load_state_dict(clip.model.state_dict())
    method.model.context.begin(method.model.towers)
    before = {name: value.clone() for name, value in method.model.towers.state_dict().items()}
    ce = _fit(method, shots, steps=100, rows=16, lr=2e-3)
    assert np.mean(ce[-10:]) < 0.5 * np.mean(ce[:5])  # 0.22 to 0.32 over three seeds
    assert np.mean(ce[-10:]) < 0.5 * math.log(8), "and not by calling all classes alike"
    assert all(torch.equal(value, before[name]) for name, value in method.model.towers.state_dict().items())
    assert all(p.grad is None for p in method.model.towers.parameters())
    learnt = dict(method.trained_modules().named_parameters())
    silent = {name for name, p in learnt.items() if p.grad is None or not p.grad.abs().sum() > 0}
    assert silent <= {"projector.0.bias"}  # a bias before BatchNorm


def _fit(method, source, *, steps: int, rows: int, lr: float) -> list[float]:
    """The cross-entropy (the loss of a method without one) of every step of AdamW."""
    data = DataModule(source, method, batch_size=rows, workers=0)
    batches = itertools.chain.from_iterable(data.train_dataloader() for _ in itertools.count())
    optimiser = torch.optim.AdamW([p for p in method.train().parameters() if p.requires_grad], lr=lr)
    found = []
    for batch in itertools.islice(batches, steps):
        terms = method.loss(method.on_after_batch_transfer(batch))
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        found.append(terms.get("ce", terms["loss"]).item())
    return found

"""ColloSSL as wired: devices, who is chosen, batches of one user, learning on made-up motion, runs and the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import selftaught
from selftaught import methods, objectives
from selftaught.data import open_source
from selftaught.engine.orders import OneGroup, batches_of
from selftaught.errors import UserError
from selftaught.evaluation.front_frozen import front_frozen
from selftaught.methods._collossl_baselines import TRANSFORMATIONS

NAMES = "wrist,forearm,thigh"


def make(devices: str = NAMES, **options) -> methods.ColloSSL:
    torch.manual_seed(0)
    count = len(devices.split(","))
    return methods.ColloSSL({"worn": devices} | options, channels=6 * count, length=50, classes=3)


def batch_of(rows: int = 8, count: int = 3) -> dict:
    """The second device is the first one turned; the third is independent."""
    g = torch.Generator().manual_seed(0)
    first = torch.randn(rows, 6, 50, generator=g)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g))[0]
    turned = torch.cat([torch.einsum("ij,njt->nit", turn, first[:, :3]), first[:, 3:]], 1)
    others = [2 + torch.randn(rows, 6, 50, generator=g) for _ in range(count - 2)]
    return {
        "series": torch.cat([first, turned, *others], 1),
        "index": torch.arange(rows),
        "label": torch.arange(rows) % 3,
    }


def test_a_turned_device_is_always_the_positive() -> None:
    method = make()
    method.loss(batch_of())
    assert method.account.positive[0].tolist() == [0, 1, 0]
    assert method.account.negative[0].tolist() == [0, 1, 1]
    assert method.account.far[0, 1].item() == pytest.approx(1e-4)
    method = make(anchor="forearm")
    method.loss(batch_of())
    assert method.account.positive[1].tolist() == [1, 0, 0]


def test_the_loss_is_the_objective_of_its_own_network() -> None:
    method, batch = make(dropout=0.0, sampling="synchronous", temperature=0.2), batch_of()
    found = method.loss(batch)
    parts = method.split(batch["series"])
    assert torch.equal(parts[1], batch["series"][:, 6:12])
    distances = torch.stack([objectives.device_distance(parts[0], parts[k]) for k in (1, 2)])
    chosen = objectives.select_devices(distances)
    z = [method.encoder(part) for part in parts]
    expected = objectives.collossl(
        z[0], z[1][None], torch.stack([z[1 + k] for k in chosen.negatives]), temperature=0.2,
        positive_weights=chosen.positive_weights, negative_weights=chosen.negative_weights,
    )  # fmt: skip
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"chosen_by": "closest_two"}, {"chosen_by": "random"}, {"distance": "axes"}, {"sampling": "asynchronous"},
        {"draws": 3}, {"weighted": False}, {"anchor": "random"}, {"positives": "thigh", "negatives": "wrist,forearm"},
        {"augment": "rotation"}, {"augment": "noise"}, {"similarity": "keras_negative"}, {"mode": "simclr"},
        {"mode": "supervised"}, {"mode": "supervised-all"}, {"mode": "transformations"}, {"mode": "autoencoder"},
    ],
)  # fmt: skip
def test_every_option_learns(options: dict) -> None:
    method = make(**options)
    loss = method.loss(batch_of())["loss"]
    loss.backward()
    gradients = [p.grad for p in method.trained_modules().parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    if "positives" in options:
        assert method.account.positive[0].tolist() == [0, 0, 1]


def test_the_baselines_of_one_device_learn_what_they_ask() -> None:
    x = batch_of(24)["series"][:, :6].cumsum(2) / 8
    for mode, better in (("transformations", 0.9), ("autoencoder", 0.6)):
        method = make(mode=mode, dropout=0.0)
        optimiser = torch.optim.Adam(method.trained_modules().parameters(), lr=2e-3)
        losses = []
        for _ in range(25):
            losses.append(method.head(method.encoder, x)["loss"])
            optimiser.zero_grad()
            losses[-1].backward()
            optimiser.step()
        assert sum(losses[-5:]) < better * sum(losses[:5]), mode
        assert method.predict({"series": x}).shape == (24, 96)
    uninformed = make(mode="transformations")
    for head in uninformed.head.heads:
        torch.nn.init.zeros_(head[-1].weight)
        torch.nn.init.zeros_(head[-1].bias)
    assert uninformed.loss(batch_of())["loss"].item() == pytest.approx(np.log(2))


def test_every_transformation_changes_every_window() -> None:
    x = batch_of(16)["series"][:, :6]
    for name, change in TRANSFORMATIONS.items():
        made = change(x)
        assert made.shape == x.shape
        assert ((made - x).abs().amax((1, 2)) > 1e-3).all(), name
    assert torch.equal(TRANSFORMATIONS["channel shuffle"](x).sort(1).values, x.sort(1).values)


def test_two_devices_are_enough_and_one_window_alone_teaches_nothing() -> None:
    method = make("wrist,ankle", dropout=0.0)
    loss = method.loss(batch_of(1, 2))["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(np.log(1 + 1e4), rel=1e-3)  # weight of the positive 1e-4 of the negative's
    assert max(float(p.grad.abs().max()) for p in method.encoder.parameters()) < 1e-6


def test_the_whole_set_chooses_once_and_the_anchor_is_one_more_negative() -> None:
    source = open_source("worn?users=2&windows=8&held_out=1", split="all")
    names = ",".join(source.devices)
    torch.manual_seed(0)
    method = methods.ColloSSL(worn=names, selection="whole", channels=24, length=60)
    method.survey({"data": source})
    assert (method.account.whole > 0).sum() == 12
    method.loss({"series": torch.stack([torch.from_numpy(source.read(i)) for i in range(6)])})
    assert method.account.negative[0].tolist() == [1, 1, 1, 1]
    other = methods.ColloSSL(worn=names, selection="whole", channels=24, length=60)
    other.same_survey(method)
    assert torch.equal(other.account.whole, method.account.whole)


def test_devices_are_worn_the_same_way_round_by_all_only_where_it_is_asked_for() -> None:
    """A linear map from one device to another, learnt on one user, holds for the other user."""
    off = {}
    for turned in (0, 1):
        source = open_source(f"worn?users=2&windows=20&held_out=1&turned={turned}", split="all")
        x = np.stack([source.read(i) for i in range(40)]).reshape(2, 20, 4, 6, 60).transpose(0, 2, 1, 4, 3)
        (wrist, thigh), (others, truth) = ((user[0].reshape(-1, 6), user[2].reshape(-1, 6)) for user in x)
        known = np.linalg.lstsq(wrist, thigh, rcond=None)[0]
        off[turned] = np.square(others @ known - truth).mean() / truth.var()
    assert off[0] < 0.4
    assert off[1] > 2 * off[0]
    with pytest.raises(UserError, match="turned=2"):
        open_source("worn?turned=2", split="all")


def test_wrong_devices_are_refused_by_name() -> None:
    for options, said in (
        ({"worn": ""}, 'give data="devices:FOLDER'), ({"anchor": "knee"}, 'anchor=.?knee.?: no such device'),
        ({"worn": "a,b", "per_device": 6}, "18 channels for 2 devices of 6"),
        ({"worn": "a,b,c,d"}, "18 channels for 4"), ({"positives": "knee"}, "positives=.?knee"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            methods.ColloSSL({"worn": NAMES} | options, channels=18, length=50)


def test_a_users_devices_of_three_axes_need_no_option(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((12, 3, 3, 60)).astype(np.float32)
    np.savez(tmp_path / "worn.npz", x=x, y=np.arange(12) % 2, group=np.arange(12) // 6)
    run = selftaught.train("collossl", f"devices:{tmp_path / 'worn.npz'}", out=str(tmp_path / "run"), steps=1,
                           batch_size=4, report=False, quiet=True, loggers=["none"], workers=0)  # fmt: skip
    assert run.method.per_device == 3
    assert run.apply(f"devices:{tmp_path / 'worn.npz'}", tmp_path / "e.npy") == 12
    with pytest.raises(UserError, match=r"windows of several devices .* devices:FILE\.npz"):
        open_source(tmp_path / "worn.npz", modality="series")


def test_a_batch_is_of_one_user() -> None:
    groups = np.repeat([0, 1, 2], [7, 8, 4])
    order = OneGroup(groups)
    order.batched(4)
    seen = [batch for epoch in range(4) for batch in batches_of(order, 4, seed=0, epoch=epoch)]
    assert len(seen) == 4 * 4
    assert all(len(set(groups[batch])) == 1 for batch in seen)
    assert len({i for batch in seen for i in batch}) > 16
    with pytest.raises(UserError, match="none has more than 8; use 8 or less"):
        order.batched(9)


@pytest.mark.slow
def test_it_learns_on_made_up_motion_and_the_released_sign_collapses(tmp_path: Path) -> None:
    gaps = {}
    for similarity in ("cosine", "keras_negative"):
        options = {"similarity": similarity, "epochs": 15, "batch_size": 60, "lr": 1e-3, "weighted": False}
        run = selftaught.train(
            "collossl", "worn", out=str(tmp_path / similarity), quiet=True, loggers=["none"], **options
        )
        source = open_source("worn", split="test")
        x = torch.stack([torch.from_numpy(source.read(i)) for i in range(60)])
        with torch.inference_mode():
            z = torch.nn.functional.normalize(run.encoder.encoder(run.method.split(x).flatten(0, 1)), dim=1)
        anchor, other = z[:60], z[60:120]
        apart = other[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
        gaps[similarity] = float((anchor * other).sum(1).mean() - (anchor * apart).sum(1).mean())
    assert gaps["cosine"] > 0.1
    assert gaps["keras_negative"] < gaps["cosine"] / 2


def test_the_last_epoch_is_judged_beside_the_best_one() -> None:
    """Where the windows that validate contradict the others, the best epoch is the first one."""
    torch.manual_seed(0)
    x, y = torch.randn(40, 3), np.arange(40) % 2
    x[:, 0] = torch.from_numpy(4.0 * y - 2)
    held = np.random.default_rng(0).permutation(40)[:8]
    wrong = y.copy()
    wrong[held] = 1 - y[held]
    classifier = torch.nn.Linear(3, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[2.0, 0, 0], [-2.0, 0, 0]]))  # it begins with the opposite
    numbers = front_frozen(classifier, x, wrong, x, y, epochs=60, lr=0.1).numbers
    assert (numbers["f1"].mean, numbers["f1_last"].mean, numbers["f1_better"].mean) == (0, 1, 1)


@pytest.mark.slow
def test_a_run_from_training_to_its_report(tmp_path: Path) -> None:
    run = selftaught.train("collossl", "worn", out=str(tmp_path / "run"), preset="laptop", epochs=2, quiet=True,
                           loggers=["none"])  # fmt: skip
    assert run.config["options"]["worn"] == "wrist,forearm,thigh,ankle"
    found = run.evaluate(protocols=["device-finetune", "knn"], fraction=0.2)
    numbers = found["device-finetune"]["this"].numbers
    assert {"f1", "f1_last", "f1_better", "weighted_f1", "f1: user 4", "f1: user 5"} <= set(numbers)
    assert set(found["device-finetune"]) == {"this", "random", "raw"}  # raw: En-Co-Training
    assert run.apply("worn", tmp_path / "e.npy") == 360
    anchor = np.load(tmp_path / "e.npy")[:3]
    x = np.stack([open_source("worn", split="all").read(i)[:6] for i in range(3)])
    alone = open_source({"x": x}, modality="series", split="all")
    assert run.apply(alone, tmp_path / "alone.npy") == 3
    np.testing.assert_allclose(np.load(tmp_path / "alone.npy"), anchor, atol=1e-5)
    assert run.export("safetensors", tmp_path / "x").exists()
    page = run.report().read_text(encoding="utf-8")
    assert "Devices: positive" in page
    assert "forearm" in page

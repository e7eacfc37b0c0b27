"""iSogCLR as wired: the sheet's step on its own embeddings with the table's rows, baselines, resume, two processes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from selftaught import methods, objectives
from selftaught.errors import UserError
from selftaught.methods.isogclr import PRESETS, Config, temperatures
from tests.conftest import TINY
from tests.methods.learning import assert_alike, assert_learns_waves, by_one_and_two
from tests.methods.resuming import cut_and_whole

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "projector": "24-12", "augment": "small", "samples": 40}


def batch_for(method, n: int = 6, channels: int = 3, index=None) -> dict:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randint(0, 256, (n, channels, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(2)]
    index = torch.arange(10, 10 + n) if index is None else torch.tensor(index)
    return method.on_after_batch_transfer({"views": views, "index": index})


def literal(z1, z2, tau, s, u, gamma, beta_u, rho, eta, low, high):
    """The sheet's batch step by loops, in float64: loss and the new (s, u, tau)."""
    views, n = [z.detach().double() for z in (z1, z2)], len(z1)
    loss, kept = 0.0, []
    for i in range(n):
        averages, slopes = [], []
        for v in range(2):
            sims = [views[v][i] @ views[w][j] for w in range(2) for j in range(n) if j != i]
            e = [torch.exp(x / tau[i]) for x in sims]
            g = sum(e) / len(e)
            average = g if s[i] == 0 else (1 - gamma) * s[i] + gamma * g
            pulled = sum(a * b for a, b in zip(e, sims, strict=True)) / average / len(e)
            loss += (pulled - views[0][i] @ views[1][i]) / n
            averages.append(average)
            slopes.append(torch.log(average) + rho - pulled / tau[i])
        slope = (sum(slopes) / 2).clamp(-3, 3)
        new_u = (1 - beta_u) * u[i] + beta_u * slope
        kept.append((sum(averages) / 2, new_u, (tau[i] - eta * new_u).clamp(low, high)))
    return float(loss), [torch.stack(list(column)).float() for column in zip(*kept, strict=True)]


def test_two_visits_are_the_sheets_steps_and_move_only_the_visited_rows() -> None:
    method = methods.ISogCLR(temperature=0.3, gamma=0.6, rho=0.2, tau_max=0.9, **SMALL)
    rows, kept = slice(10, 16), {"tau": torch.full((40,), 0.3), "s": torch.zeros(40), "u": torch.zeros(40)}
    batch = batch_for(method)
    for _ in range(2):
        z1, z2 = (normalize(z) for z in method.embed(batch))
        given = [kept[name][rows].double() for name in ("tau", "s", "u")]
        loss, new = literal(z1, z2, *given, 0.6, 0.5, 0.2, 0.03, 0.05, 0.9)
        terms = method.loss(batch)
        assert terms["loss"].item() == pytest.approx(loss, abs=1e-5)
        assert terms["temperature"].item() == pytest.approx(kept["tau"][rows].mean().item(), abs=1e-6)
        for name, value in zip(("s", "u", "tau"), new, strict=True):
            kept[name][rows] = value
        for name, value in kept.items():
            torch.testing.assert_close(method.state.get_buffer(name), value, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            method.projector[-1].weight.mul_(torch.linspace(0.5, 1.5, 12).unsqueeze(1))  # another z the second time
    torch.testing.assert_close(method.temperatures(), kept["tau"], rtol=1e-4, atol=1e-5)


def test_an_evaluation_pass_leaves_the_state_alone() -> None:
    method = methods.ISogCLR(**SMALL).eval()
    method.loss(batch_for(method))
    assert method.state.s.abs().sum() == 0


@pytest.mark.parametrize("kind", ["fixed", "global"])
def test_baselines_keep_one_temperature_that_stays_or_learns(kind: str) -> None:
    method = methods.ISogCLR(temperatures=kind, temperature=0.3, rho=0.2, beta_u=0.5, eta=0.04, **SMALL)
    batch = batch_for(method)
    z1, z2 = (normalize(z) for z in method.embed(batch))
    expected = objectives.isogclr_terms(z1, z2, tau=0.3, rho=0.2)
    assert method.loss(batch)["loss"].item() == pytest.approx(
        objectives.sogclr(z1, z2, temperature=0.3).item(), abs=1e-5
    )
    torch.testing.assert_close(method.state.s[10:16], expected["s"].detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.state.tau, torch.full((40,), 0.3))
    moved = 0.3 - 0.04 * 0.5 * expected["gradient"].mean().item() if kind == "global" else 0.3
    assert method.shared_tau.item() == pytest.approx(moved, abs=1e-5)
    assert method.temperatures().tolist() == pytest.approx([moved] * 40, abs=1e-5)
    again = method.loss(batch)["loss"].item()
    second = objectives.isogclr(z1, z2, tau=moved, s=expected["s"])
    assert again == pytest.approx(second.item(), abs=1e-5)


def test_no_step_size_is_sogclr_step_for_step() -> None:
    torch.manual_seed(0)
    a = methods.ISogCLR(eta=0.0, **SMALL)
    b = methods.ISogCLR(temperatures="fixed", **SMALL)
    b.load_state_dict(a.state_dict())
    for _ in range(3):
        assert torch.equal(a.loss(batch_for(a))["loss"], b.loss(batch_for(b))["loss"])


def test_libauc_form_and_its_head() -> None:
    method = methods.ISogCLR(form="libauc", temperature=0.5, tau_max=0.7, **SMALL)
    assert isinstance(method.projector[-1], torch.nn.BatchNorm1d)
    assert method.projector[-1].weight is None
    batch = batch_for(method)
    z1, z2 = method.embed(batch)
    terms = objectives.isogclr_libauc_terms(z1, z2, tau=0.5, gamma=0.8, beta_u=0.5, rho=0.4, eta=0.03)
    assert method.loss(batch)["loss"].item() == pytest.approx(terms["loss"].item(), abs=1e-5)
    torch.testing.assert_close(method.state.tau[10:16], terms["tau"], rtol=1e-4, atol=1e-5)


def test_queue_host_contrasts_with_the_queue_and_then_takes_the_keys_in() -> None:
    method = methods.ISogCLR(host="queue", queue=15, temperature=0.3, **SMALL)
    batch = batch_for(method)
    x1, x2 = batch["views"]
    q, k, before = normalize(method.project(x1)), normalize(method.target(x2)), method.queue.items.clone()
    expected = objectives.isogclr_queue_terms(q, k, before, tau=0.3)
    assert method.loss(batch)["loss"].item() == pytest.approx(expected["loss"].item(), abs=1e-5)
    torch.testing.assert_close(method.queue.items[:6], k)
    torch.testing.assert_close(method.state.tau[10:16], expected["tau"], rtol=1e-4, atol=1e-5)
    own = next(iter(method.encoder.parameters()))
    with torch.no_grad():
        own.add_(1.0)
    copy = next(iter(method.momentum.parameters())).clone()
    method.after_step()
    torch.testing.assert_close(next(iter(method.momentum.parameters())), copy + 0.001 * (own.detach() - copy))


def test_gamma_falls_from_1_over_the_first_half(monkeypatch) -> None:
    method = methods.ISogCLR(gamma=0.2, gamma_schedule="cosine", **SMALL)
    monkeypatch.setattr(type(method), "total_steps", 100)
    for progress, gamma in ((0.0, 1.0), (0.25, 0.6), (0.5, 0.2), (0.9, 0.2)):
        monkeypatch.setattr(type(method), "progress", progress)
        assert method.gamma == pytest.approx(gamma)
    method.config.gamma_schedule = "constant"
    assert method.gamma == 0.2


def test_gradient_reaches_encoder_and_projector_through_four_channels_and_the_state_has_none() -> None:
    method = methods.ISogCLR(channels=4, **SMALL)
    batch = batch_for(method, channels=4)
    method.loss(batch)["loss"].backward()
    trained = {n.split(".")[0] for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert trained == {"encoder", "projector"}
    assert not any(buffer.requires_grad for buffer in method.buffers())
    assert method.predict(batch).shape == (6, method.encoder.dim)


def test_a_sample_twice_in_a_batch_keeps_one_finite_state() -> None:
    method = methods.ISogCLR(**SMALL)
    method.loss(batch_for(method, index=[3, 3, 1, 2, 3, 0]))["loss"].backward()
    assert (method.state.s[:4] > 0).all()
    assert method.state.s.isfinite().all()


def test_what_it_cannot_do_is_said_in_one_line() -> None:
    lone = methods.ISogCLR(**SMALL | {"samples": 0})
    with pytest.raises(UserError, match="samples="):
        lone.loss(batch_for(lone))
    method = methods.ISogCLR(**SMALL)
    with pytest.raises(UserError, match="table of 40"):
        method.loss(batch_for(method, index=[1, 2, 3, 4, 5, 40]))
    with pytest.raises(UserError, match="temperature"):
        methods.ISogCLR(temperature=0.01, **SMALL)
    with pytest.raises(UserError, match="form=libauc"):
        methods.ISogCLR(form="libauc", host="queue", **SMALL)


def test_presets_name_options_that_exist() -> None:
    settings = {"epochs", "batch_size", "steps"}
    for name, preset in PRESETS.items():
        config = Config(**{k: v for k, v in preset.items() if k not in settings})
        assert settings & set(preset), name
        assert config.tau_min <= config.temperature <= config.tau_max


@pytest.mark.slow
@pytest.mark.parametrize("host", ["batch", "queue"])
def test_a_resumed_run_is_bit_identical_in_weights_and_state(host: str, tmp_path: Path) -> None:
    whole, cut = cut_and_whole("isogclr", tmp_path, TINY | {"host": host, "queue": 64, "temperature": 0.2})
    assert whole["state.tau"].std() > 0
    assert (whole["state.s"] > 0).sum() > 150
    assert whole.keys() == cut.keys()
    for name in whole:
        assert torch.equal(torch.as_tensor(whole[name]), torch.as_tensor(cut[name])), name
    found = temperatures(tmp_path / "whole/checkpoints/train.ckpt")
    assert torch.equal(found, whole["state.tau"])
    with pytest.raises(UserError, match="no such checkpoint"):
        temperatures(tmp_path / "whole/none.ckpt")


@pytest.mark.slow
def test_two_processes_with_half_the_table_each_equal_one_with_the_doubled_batch() -> None:
    """Built without its number of samples, too: the trainer's data tell it."""
    options = {"lr_scaling": Config.lr_scaling, "temperature": 0.2, "gamma": 0.5}
    one, two = by_one_and_two("isogclr", options, data="digits?n=150", steps=12)
    assert one["held"] == [150]
    assert two["held"] == [75]
    assert one["state"]["state.tau"].std() > 0
    assert_alike(one["state"], two["state"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_it_learns_waves(tmp_path: Path) -> None:
    run = assert_learns_waves("isogclr", tmp_path / "run")
    assert math.isfinite(temperatures(run.path / "checkpoints/train.ckpt").mean())


def test_the_official_start_is_too_small_by_gamma_after_the_first_epoch(monkeypatch) -> None:
    found = {}
    for start in ("mean", "official"):
        for epochs in (0.5, 1.0):
            torch.manual_seed(0)
            method = methods.ISogCLR(start=start, gamma=0.6, **SMALL)
            monkeypatch.setattr(type(method), "epochs_done", epochs)
            method.loss(batch_for(method))
            found[start, epochs] = method.state.s[10:16]
    torch.testing.assert_close(found["official", 0.5], found["mean", 0.5])
    torch.testing.assert_close(found["official", 1.0], 0.6 * found["mean", 1.0])
    with pytest.raises(UserError, match="start=official goes with form=official"):
        methods.ISogCLR(start="official", form="libauc", **SMALL)

"""Mixed Barlow Twins and VICReg as wired: their loss is the sheet's formula of their own embeddings, and they learn."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from torch import nn

import selftaught
from selftaught import methods
from tests.conftest import TINY
from tests.methods.learning import assert_learns_waves
from tests.two_processes import by_two

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "projector": "24-12", "augment": "small"}


def batch_for(method, n: int = 10, channels: int = 3) -> dict:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randint(0, 256, (n, channels, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(2)]
    batch = method.on_after_batch_transfer({"views": views, "index": torch.arange(n)})
    batch["views"] = [view.to(next(method.parameters()).dtype) for view in batch["views"]]
    return batch


def arrays(*tensors: torch.Tensor) -> list[np.ndarray]:
    return [t.detach().double().numpy() for t in tensors]


def standardised(z: np.ndarray, l2: bool) -> np.ndarray:
    z = z / np.linalg.norm(z, axis=1, keepdims=True) if l2 else z
    return (z - z.mean(0)) / z.std(0, ddof=1)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("script", ["small-image", "imagenet"])
def test_mixed_method_is_the_sheets_loss_of_its_own_three_batches(per_sample: bool, script: str) -> None:
    options = {"reg_half": True, "l2_before_standardise": False} if script == "imagenet" else {}
    method = methods.MixedBarlowTwins(
        script=script, per_sample_alpha=per_sample, channels=4, lambda_reg=3.0, **options, **SMALL
    ).double()
    batch = batch_for(method, channels=4)
    torch.manual_seed(5)
    terms = method.loss(batch)
    torch.manual_seed(5)
    alpha, pi = method.draw_mixture(10)
    x1, x2 = batch["views"]
    share = alpha[:, None, None, None].double()
    z1, z2, zm = arrays(*(method.project(x) for x in (x1, x2, share * x1 + (1 - share) * x2[pi])))
    a, b, m = (standardised(z, l2=script == "small-image") for z in (z1, z2, zm))
    c, weight = a.T @ b / 10, method.config.lambda_bt
    on = ((np.diag(c) - 1) ** 2).sum()
    off = (c**2).sum() - (np.diag(c) ** 2).sum()
    rows = alpha.double().numpy()[:, None]
    wanted = [((rows * a).T @ v + ((1 - rows) * b[pi]).T @ v) / 10 for v in (a, b)]
    error = sum(((m.T @ v / 10 - w) ** 2).sum() for v, w in zip((a, b), wanted, strict=True))
    regularisation = weight * error * (0.5 if script == "imagenet" else 1)
    assert terms["regularisation"].item() == pytest.approx(regularisation, rel=1e-6)
    assert terms["loss"].item() == pytest.approx(on + weight * off + 3 * regularisation, rel=1e-6)
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.encoder.model.conv1.parameters())
    assert all(p.grad is not None for p in method.parameters())


@pytest.mark.parametrize("per_sample", [False, True])
def test_a_linear_network_embeds_the_mixture_as_the_mixture(per_sample: bool, monkeypatch) -> None:
    """Share and permutation are the same in pixels as in embeddings."""
    method = methods.MixedBarlowTwins(per_sample_alpha=per_sample, **SMALL).double()
    method.encoder, method.projector = nn.Flatten(), nn.Linear(768, 6).double()
    seen: list[torch.Tensor] = []
    objective = method.objective

    def remember(*embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.extend(embeddings)
        return objective(*embeddings)

    monkeypatch.setattr(method, "objective", remember)
    method.loss(batch_for(method))
    z1, z2, zm, alpha, pi = seen
    rows = alpha.unsqueeze(1)
    torch.testing.assert_close(zm, rows * z1 + (1 - rows) * z2[pi], rtol=1e-6, atol=1e-8)
    assert (zm - z1).abs().max() > 1e-3


def test_mixtures_stay_out_of_the_running_statistics_unless_asked_for() -> None:
    """Evaluation normalises real images; mixtures have less contrast and would skew it."""
    found = {}
    for counted in (None, False, True):
        torch.manual_seed(3)
        options = {"lambda_reg": 0.0} if counted is None else {"mixture_in_statistics": counted}
        method = methods.MixedBarlowTwins(**options, **SMALL)
        method.loss(batch_for(method))
        found[counted] = {k: v for k, v in method.state_dict().items() if "running" in k}
    assert all(torch.equal(value, found[None][name]) for name, value in found[False].items())
    assert not any(torch.equal(value, found[None][name]) for name, value in found[True].items())


def test_lambda_reg_zero_is_barlow_twins_and_spares_the_third_forward() -> None:
    calls: list[int] = []
    method = methods.MixedBarlowTwins(lambda_reg=0.0, **SMALL)
    method.encoder.register_forward_hook(lambda *_: calls.append(1))
    batch = batch_for(method)
    plain = method.loss(batch)
    assert len(calls) == 2
    assert set(plain) == {"loss", "invariance", "redundancy"}
    z1, z2 = arrays(*method.embed(batch))
    c = standardised(z1, l2=True).T @ standardised(z2, l2=True) / 10
    expected = ((np.diag(c) - 1) ** 2).sum() + ((c - np.diag(np.diag(c))) ** 2).sum() / 128
    assert plain["loss"].item() == pytest.approx(expected, rel=1e-4)
    calls.clear()
    method.config.lambda_reg = 4.0
    method.loss(batch)
    assert len(calls) == 3


@pytest.mark.parametrize("parameter", [0.3, 1.0, 5.0])
def test_shares_follow_their_beta_distribution(parameter: float) -> None:
    torch.manual_seed(0)
    method = methods.MixedBarlowTwins(mix_alpha=parameter, per_sample_alpha=True, **SMALL)
    alpha, pi = method.draw_mixture(20000)
    assert alpha.mean().item() == pytest.approx(0.5, abs=0.01)
    assert alpha.var().item() == pytest.approx(1 / (4 * (2 * parameter + 1)), rel=0.03)
    assert torch.equal(pi.sort().values, torch.arange(20000))
    method.config.per_sample_alpha = False
    torch.manual_seed(1)
    first, order = method.draw_mixture(50)
    assert first.shape == (50,)
    assert first.unique().numel() == 1
    second, other = method.draw_mixture(50)
    assert first[0] != second[0]
    assert not torch.equal(order, other)
    torch.manual_seed(1)
    again, same = method.draw_mixture(50)
    assert torch.equal(first, again)
    assert torch.equal(order, same)


def test_the_two_scripts_differ_in_views_and_the_projectors_last_layer() -> None:
    options = SMALL | {"augment": "paper"}
    small = methods.MixedBarlowTwins(grey_probability=0.1, **options)
    large = methods.MixedBarlowTwins(script="imagenet", **options | {"projector": "24-24-12"})
    assert small.projector[-1].bias is not None
    assert small.projector[0].bias is None
    assert all(m.bias is None for m in large.projector if isinstance(m, nn.Linear))
    first, second = small.views()
    assert first.ops == second.ops
    assert "Grayscale(p=0.1)" in [repr(op) for op in first.ops]
    assert not any("Blur" in repr(op) for op in first.ops)
    first, second = large.views()
    assert first.ops != second.ops
    assert any("Solarize" in repr(op) for op in second.ops)


def test_a_rate_of_their_own_for_biases_and_norms() -> None:
    method = methods.MixedBarlowTwins(lr=0.2, lr_biases=0.0048, **SMALL)
    assert [group["lr"] for group in method.parameter_groups(0.8)] == pytest.approx([0.8, 0.8 * 0.024])
    method.config.lr_biases = 0.0
    assert [group["lr"] for group in method.parameter_groups(0.8)] == [0.8, 0.8]


@pytest.mark.parametrize("std_reduction", ["sum", "mean"])
def test_vicreg_method_is_the_sheets_loss_of_its_own_embeddings(std_reduction: str) -> None:
    weights = {"invariance": 10.0, "variance": 20.0, "covariance": 3.0, "gamma": 0.7}
    method = methods.VICReg(channels=4, std_reduction=std_reduction, **weights, **SMALL).double()
    batch = batch_for(method, channels=4)
    terms = method.loss(batch)
    z = arrays(*method.embed(batch))
    spread = sum(np.maximum(0, 0.7 - np.sqrt(v.var(0, ddof=1) + 1e-4)).mean() for v in z)
    spread /= 2 if std_reduction == "mean" else 1
    covariances = [np.cov(v.T) for v in z]
    repetition = sum(((c - np.diag(np.diag(c))) ** 2).sum() / 12 for c in covariances)
    expected = 10 * ((z[0] - z[1]) ** 2).mean() + 20 * spread + 3 * repetition
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-8)
    terms["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


def test_vicregs_expander_and_views() -> None:
    method = methods.VICReg(**SMALL | {"augment": "paper", "projector": "24-24-12"})
    linears = [m for m in method.projector if isinstance(m, nn.Linear)]
    assert [m.bias is None for m in linears] == [False, False, True]
    first, second = method.views()
    assert first.ops == second.ops
    assert [repr(op) for op in first.ops[-2:]] == ["GaussianBlur()", "Solarize(p=0.1)"]
    assert first.ops[-2].p == 0.5


def half_of_the_batch(local: bool) -> dict:
    rank = torch.distributed.get_rank()
    method = methods.MixedBarlowTwins(encoder="resnet10-narrow", image_size=16, local_statistics=local).double()
    torch.manual_seed(0)
    method.encoder, method.projector = nn.Flatten(), nn.Linear(48, 5).double()
    views = [torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(k)).double() for k in (1, 2)]
    rows = slice(8 * rank, 8 * rank + 8)
    torch.manual_seed(rank)  # each process has a share and a permutation of its own
    alpha, pi = method.draw_mixture(8)
    torch.manual_seed(rank)
    loss = method.loss({"views": [view[rows] for view in views]})["loss"]
    loss.backward()
    found = {"loss": loss.detach(), "gradient": method.projector.weight.grad, "alpha": alpha.clone(), "pi": pi}
    return found | {"weight": method.projector.weight.detach(), "bias": method.projector.bias.detach()}


@pytest.mark.slow
@pytest.mark.parametrize("local", [False, True])
def test_two_processes_compute_the_loss_of_the_whole_batch(local: bool) -> None:
    first, second = by_two(half_of_the_batch, local, joined=True)
    x1, x2 = (torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(k)).double() for k in (1, 2))
    alpha = torch.cat([first["alpha"], second["alpha"]])
    pi = torch.cat([first["pi"], second["pi"] + 8])
    assert alpha[0] != alpha[8]
    share = alpha.double().view(-1, 1, 1, 1)
    weight, bias = first["weight"].requires_grad_(), first["bias"]
    z = [nn.functional.linear(x.flatten(1), weight, bias) for x in (x1, x2, share * x1 + (1 - share) * x2[pi])]
    whole = selftaught.objectives.mixed_barlow_twins(
        *z, alpha, pi, l2_before_standardise=True, groups=2 if local else 1
    )
    whole.backward()
    for found in (first, second):
        assert found["loss"].item() == pytest.approx(whole.item(), rel=1e-10)
    mean = (first["gradient"] + second["gradient"]) / 2  # what DistributedDataParallel does
    torch.testing.assert_close(mean, weight.grad, rtol=1e-8, atol=1e-11)


@pytest.mark.slow
def test_the_ramp_of_the_regularisation_over_a_run(tmp_path) -> None:
    options = TINY | {"steps": 20, "log_every": 1, "reg_warmup_epochs": 100.0, "lambda_reg": 2.0, "lambda_bt": 0.01}
    run = selftaught.train("mixed-barlow-twins", "digits", out=str(tmp_path / "run"), augment="grey", **options)
    rows = list(csv.DictReader((run.path / "metrics.csv").open()))
    found = []
    for row in rows:
        loss, on, off, part = (float(row[k]) for k in ("loss", "invariance", "redundancy", "regularisation"))
        found.append((loss - on - 0.01 * off) / (2.0 * part))
    expected = [0, 0.25, 0.5, 0.75, *[1.0] * 16]  # a fifth of the run at most
    assert found == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_a_killed_run_of_mixed_barlow_twins_resumes_bit_identically(tmp_path, monkeypatch) -> None:
    options = TINY | {"augment": "grey", "checkpoint_steps": 5, "per_sample_alpha": True, "mix_alpha": 0.5}
    whole = selftaught.train("mixed-barlow-twins", "digits", out=str(tmp_path / "whole"), **options)

    def power_cut(self) -> None:
        if self.steps == 8:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(methods.MixedBarlowTwins, "after_step", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            selftaught.train("mixed-barlow-twins", "digits", out=str(tmp_path / "cut"), **options)
    paths = [folder / "checkpoints/train.ckpt" for folder in (tmp_path / "cut", whole.path)]
    assert torch.load(paths[0], weights_only=True)["global_step"] == 5
    selftaught.train("mixed-barlow-twins", resume=tmp_path / "cut", quiet=True)
    states = [torch.load(path, weights_only=True)["state_dict"] for path in paths]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["mixed-barlow-twins", "vicreg"])
def test_it_learns_waves(slug: str, tmp_path) -> None:
    assert_learns_waves(slug, tmp_path / "run")

"""INFWIDE as wired: the quadruple, baselines, kernels from everywhere, judging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import selftaught
from selftaught import methods, objectives
from selftaught.data import open_source
from selftaught.data.kernels import read_kernel
from selftaught.engine.loader import DataModule
from selftaught.errors import UserError
from selftaught.networks.wiener import circular_blur, wiener

TINY: dict[str, Any] = {"features": 4, "width": 4, "patch": 32, "kernel_size": 5, "validation": 0.0, "patience": 0}
RUN: dict[str, Any] = {"batch_size": 2, "workers": 0, "quiet": True, "loggers": ["none"], "device": "cpu"}


def first(method: Any, source: Any = "photos:whole") -> dict[str, Any]:
    return next(iter(DataModule(source, method, batch_size=2, workers=0).train_dataloader()))


def test_the_quadruple_is_what_it_says() -> None:
    method = methods.InfWide(**TINY, noise_model="gaussian", sigma=0.0)
    y, k, x, b = method.quadruple(first(method))
    torch.testing.assert_close(k.sum((1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(b, circular_blur(x, k), atol=1e-5, rtol=0)
    torch.testing.assert_close(y, b.clamp(0, 1 / 1.2), atol=1e-5, rtol=0)
    noisy = methods.InfWide(**TINY, gain=8.0)
    y, k, x, b = noisy.quadruple(first(noisy))
    assert y.max() <= 1 / 1.2 + 1e-6
    assert 0.02 < (y - b).std() < 0.5


@pytest.mark.parametrize("network", ["infwide", "dwdn", "wiener", "richardson-lucy"])
def test_every_network_has_its_loss(network: Any) -> None:
    method = methods.InfWide(**TINY, network=network, iterations=2)
    batch = first(method)
    y, k, x, b = method.quadruple(batch)
    made = method.net.network(y, k)
    terms = method.loss(batch)
    main = objectives.infwide_main(made.images, x)
    reblur = objectives.infwide_reblur(made.images[-1], k, b)
    expected = main + 0.5 * reblur
    if network == "infwide":
        expected = objectives.infwide(made.images, made.denoised, x, b, k)
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert method.predict(batch).shape == x.shape
    assert bool(method.optimisers()) == (network in ("infwide", "dwdn"))


def test_a_run_can_begin_as_the_wiener_filter() -> None:
    for options, classical in (({}, False), ({"network": "dwdn"}, False), ({"network": "wiener"}, True)):
        begun, random = (methods.InfWide(**TINY | options, start=start) for start in ("wiener", "random"))
        batch = first(begun)
        y, k, *_ = begun.quadruple(batch)
        errors = [(m.net.network(y, k).images[-1] - wiener(y, k).clamp_min(0)).abs().mean() for m in (begun, random)]
        assert errors[0] <= (errors[1] if classical else 0.2 * errors[1])
    with pytest.raises(UserError, match="5 channels need as many"):
        methods.InfWide(**TINY, channels=5, start="wiener")
    methods.InfWide(**TINY, channels=5)


@pytest.mark.parametrize("network", ["wiener", "richardson-lucy"])
def test_what_learns_nothing_says_so_and_is_done_at_once(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = TINY | {"network": network, "iterations": 2, "steps": 5000}
    run = selftaught.train("infwide", "photos:whole", out=tmp_path / "run", **options, **RUN | {"quiet": False})
    said = capsys.readouterr()
    assert "nothing to learn here" in said.out + said.err
    assert "; 1 step; " in said.out + said.err
    assert run.layout.read_state()["stages"]["train"]["steps"] == 1
    with pytest.raises(UserError, match="learns nothing"):
        selftaught.train("infwide", extend=run.path, steps=6000)
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), rng.integers(0, 256, (30, 34, 3), dtype=np.uint8))
    np.savetxt(tmp_path / "in" / "kernel.txt", np.ones((3, 3)))
    assert selftaught.load(tmp_path / "run").apply(tmp_path / "in", tmp_path / "out") == 1


@pytest.mark.parametrize(
    ("options", "learns"),
    [
        ({}, True),
        ({"network": "dwdn"}, True),
        ({"branches": "image"}, True),
        ({"branches": "image", "input_denoise": False}, False),
        ({"branches": "feature", "input_denoise": False}, True),
        ({"network": "wiener"}, False),
        ({"network": "richardson-lucy"}, False),
    ],
)
def test_what_has_no_weights_learns_nothing(options: dict[str, Any], learns: bool) -> None:
    method = methods.InfWide(**TINY | options)
    assert method.learns == learns
    assert bool(list(method.parameters())) == learns
    assert bool(method.optimisers()) == learns


def test_gradients_are_clamped_and_the_denoiser_can_stop() -> None:
    method = methods.InfWide(**TINY, freeze_denoiser=1)
    optimiser = torch.optim.Adam(method.parameters())
    method.loss(first(method))["loss"].mul(1e4).backward()
    method.edit_gradients(optimiser)
    assert optimiser.param_groups[0]["amsgrad"]
    assert max(p.grad.abs().max() for p in method.parameters() if p.grad is not None) <= 0.5
    assert next(method.net.network.denoiser.parameters()).grad is not None
    method.plan(10, 1)
    method.steps = 1
    method.edit_gradients(optimiser)
    assert all(p.grad is None for p in method.net.network.denoiser.parameters())
    optimiser.step()


def test_a_higher_gain_is_noisier_with_the_same_kernel() -> None:
    method = methods.InfWide(**TINY)
    assert method.strengths == {"gain 4": {"gain": 4.0}, "gain 16": {"gain": 16.0}}
    assert methods.InfWide(**TINY, noise_model="gaussian").strengths == {}
    clean = np.random.default_rng(0).random((9, 10, 3)).repeat(8, 0).repeat(8, 1).astype(np.float32)
    made = [method.degraded(clean, **strength) for strength in ({"gain": 4.0}, {}, {"gain": 16.0})]
    errors = [float(np.square(one[0] - made[0][1]).mean()) for one in made]
    assert 1.2 * errors[0] < errors[1] < errors[2] / 1.2
    assert all(torch.equal(one[2]["kernel"], made[0][2]["kernel"]) for one in made)


def test_kernels_from_files(tmp_path: Path) -> None:
    kernel = np.outer([1, 2, 1], [0, 1, 1]) / 8
    np.savetxt(tmp_path / "k.txt", 5 * kernel)
    np.savetxt(tmp_path / "k.csv", kernel, delimiter=";")
    np.save(tmp_path / "k.npy", kernel)
    cv2.imwrite(str(tmp_path / "k.png"), np.rint(kernel * 400).astype(np.uint8))
    for name in ("k.txt", "k.csv", "k.npy", "k.png"):
        np.testing.assert_allclose(read_kernel(tmp_path / name), kernel, atol=1e-6)
    (tmp_path / "bad.txt").write_text("1 2\n3")
    for wrong in ("bad.txt", "none.txt"):
        with pytest.raises(UserError, match="no kernel can be read"):
            read_kernel(tmp_path / wrong)
    np.savetxt(tmp_path / "zero.txt", 0 * kernel)
    with pytest.raises(UserError, match="some above"):
        read_kernel(tmp_path / "zero.txt")


def test_a_run_applies_with_kernels_beside_for_all_or_in_pairs(tmp_path: Path) -> None:
    options = TINY | {"network": "wiener", "nsr_mode": "fixed", "nsr": 0.1, "steps": 1}
    run = selftaught.train("infwide", "photos:whole", out=tmp_path / "run", **options, **RUN)
    pictures = tmp_path / "in"
    (pictures / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (30, 34, 3), dtype=np.uint8) for name in ("a", "sub/b")}
    for name, image in images.items():
        cv2.imwrite(str(pictures / f"{name}.png"), image[:, :, ::-1])
    with pytest.raises(UserError, match=r"kernel\.txt"):
        run.apply(pictures, tmp_path / "none")
    np.savetxt(pictures / "kernel.txt", np.ones((3, 3)))
    np.savetxt(pictures / "sub" / "b.kernel.txt", np.diag([1, 2, 3]))
    assert run.apply(pictures, tmp_path / "out") == 2
    for name, kernel in (("a", np.ones((3, 3)) / 9), ("sub/b", np.diag([1, 2, 3]) / 6)):
        x = torch.from_numpy(images[name] / np.float32(255)).permute(2, 0, 1)[None]
        wanted = run.method.net(x, torch.from_numpy(kernel).float()[None, None])[0].permute(1, 2, 0).numpy()
        found = cv2.imread(str(tmp_path / "out" / f"{name}.png"))
        assert found is not None
        assert np.abs(found[:, :, ::-1] / 255 - wanted).max() < 1 / 255
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((3, 3), 90, np.uint8))
    flat = str(tmp_path / "flat.png")
    assert run.apply(pictures, tmp_path / "flat", kernel=flat) == 2  # for all: b's own, too
    assert run.apply(pictures, tmp_path / "flat", kernel=flat).kept == 2
    assert run.apply(pictures, tmp_path / "out").kept == 2
    np.savetxt(pictures / "sub" / "b.kernel.txt", np.diag([3, 2, 1, 4]))  # made again with the kernel of today
    before = (tmp_path / "out" / "sub" / "b.png").read_bytes()
    again = run.apply(pictures, tmp_path / "out")
    assert (again, again.kept) == (1, 1)
    assert (tmp_path / "out" / "sub" / "b.png").read_bytes() != before
    cv2.imwrite(flat, np.array([[90, 200, 90]], np.uint8))
    assert run.apply(pictures, tmp_path / "flat", kernel=flat) == 2
    cv2.imwrite(flat, np.full((3, 3), 90, np.uint8))
    assert run.apply(pictures, tmp_path / "flat", kernel=flat) == 2
    with pytest.raises(UserError, match="no kernel can be read"):
        run.apply(pictures, tmp_path / "none", kernel=str(tmp_path / "none.png"))
    kernels = tmp_path / "kernels"
    (kernels / "sub").mkdir(parents=True)
    for name in images:
        cv2.imwrite(str(kernels / f"{name}.png"), np.full((3, 3), 90, np.uint8))
    assert run.apply(f"pairs:{tmp_path}?blurred=in&kernel=kernels", tmp_path / "paired") == 2
    one, other = (cv2.imread(str(tmp_path / place / "a.png")) for place in ("out", "paired"))
    assert np.array_equal(one, other)  # type: ignore[arg-type]
    flat, other = (cv2.imread(str(tmp_path / place / "sub" / "b.png")) for place in ("flat", "paired"))
    assert np.array_equal(flat, other)  # type: ignore[arg-type]
    found = run.evaluate(limit=1)["restoration"]
    assert found["this"]["psnr"].mean > 5
    assert found["this"]["psnr_gain_4"].mean > found["this"]["psnr_gain_16"].mean > 5


def test_onnx_asks_for_the_kernel_that_its_pictures_share(tmp_path: Path) -> None:
    run = selftaught.train("infwide", "photos:whole", out=tmp_path / "run", **TINY, **RUN, steps=1)
    with pytest.raises(UserError, match=r'^format="onnx": .*kernel_file=FILE.*safetensors$'):
        run.export("onnx")
    assert not (run.path / "export").exists()
    assert run.export("safetensors").exists()


def test_triples_of_ones_own_train_and_a_kernel_for_all_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("sharp", "blurred", "kernel"):
        (tmp_path / name).mkdir()
        for i in range(3):
            shape = (5, 5) if name == "kernel" else (40, 44, 3)
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), rng.integers(1, 256, shape, dtype=np.uint8))
    np.savetxt(tmp_path / "one.txt", np.ones((5, 5)))
    source = open_source({name: str(tmp_path / name) for name in ("blurred", "sharp", "kernel")}, split="all")
    options = TINY | {"kernel_file": str(tmp_path / "one.txt"), "steps": 1}
    run = selftaught.train("infwide", source, out=tmp_path / "run", **options, **RUN)
    loaded = selftaught.load(tmp_path / "run")
    torch.testing.assert_close(loaded.method.net.fixed, torch.full((1, 1, 5, 5), 0.04))
    x = torch.rand(1, 3, 24, 24)
    torch.testing.assert_close(loaded.method.predict({"views": [x]}), run.method.predict({"views": [x]}))


@pytest.mark.slow
def test_it_learns() -> None:
    options = TINY | {"patch": 24, "width": 2, "noise_model": "gaussian", "sigma": 0.02}
    torch.manual_seed(0)
    method = methods.InfWide(**options)
    batch = first(method)
    y, k, x, _ = method.quadruple(batch)
    optimiser = torch.optim.Adam(method.parameters(), lr=4e-3)
    errors = []
    for _ in range(80):
        optimiser.zero_grad()
        method.loss(batch)["loss"].backward()
        optimiser.step()
        with torch.no_grad():
            errors.append((method.net(y, k) - x).square().mean().item())
    assert errors[-1] < 0.3 * errors[0]
    classical = methods.InfWide(**options, network="wiener").net(y, k)
    assert errors[-1] < 0.7 * (classical - x).square().mean()

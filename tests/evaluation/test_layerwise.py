"""Layer-wise probes, the worst group, and tapping networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from selftaught import networks
from selftaught.errors import UserError
from selftaught.evaluation.layerwise import layer_features, layer_names, layerwise, stack_layers, worst_group


def blobs(n: int, seed: int, classes: int = 3, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centres = 2 * np.random.default_rng(99).standard_normal((classes, width))
    return (centres[y] + rng.standard_normal((n, width))).astype(np.float32), y


def test_every_layer_gets_every_probe_and_the_best_is_named() -> None:
    (x, y), (tx, ty) = blobs(200, 0), blobs(150, 1)
    noise = np.random.default_rng(2).standard_normal
    train = {"early": noise((200, 4)), "h": x, "z": x[:, :1]}
    test = {"early": noise((150, 4)), "h": tx, "z": tx[:, :1]}
    result = layerwise(train, y, test, ty, probes=("linear", "linear-raw", "knn"))
    figure = result.figures["layers"]
    assert figure["names"] == ["early", "h", "z"]
    assert figure["widths"] == [4, 5, 1]
    assert figure["best"] == {"linear": "h", "linear-raw": "h", "knn": "h"}
    assert next(iter(result.numbers)) == "best linear"
    for probe in ("linear", "linear-raw", "knn"):
        assert result[f"h {probe}"].mean > 0.9
        assert result[f"early {probe}"].mean < 0.5
        assert result[f"best {probe}"] == result[f"h {probe}"]
        assert figure[probe]["mean"] == [result[f"{layer} {probe}"].mean for layer in figure["names"]]
        assert all(a < b for a, b in zip(figure[probe]["low"], figure[probe]["high"], strict=True))


def test_only_probes_without_each_features_scale_see_a_reweighting() -> None:
    (x, y), (tx, ty) = blobs(300, 0, width=6), blobs(300, 1, width=6)
    weights = networks.reweighting(6, 8.0).numpy()
    result = layerwise({"h": x, "z": x * weights}, y, {"h": tx, "z": tx * weights}, ty,
                       probes=("linear", "linear-raw", "knn"))  # fmt: skip
    assert result["h linear"].mean == pytest.approx(result["z linear"].mean, abs=0.01)
    assert result["z knn"].mean < result["h knn"].mean - 0.05
    assert result["z linear-raw"].mean < result["h linear-raw"].mean - 0.02


def test_the_worst_group_is_found_and_balance_helps_it() -> None:
    rng = np.random.default_rng(0)

    def sample(n: int, rare: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A weak core feature, and a strong shortcut that agrees with the class except in the rare groups."""
        r = np.random.default_rng(seed)
        y, place = r.integers(0, 2, n), r.random(n) < rare
        shortcut = np.where(place, 1 - y, y)
        x = np.stack([2 * y - 1 + 0.7 * r.standard_normal(n), 3 * (2 * shortcut - 1) + 0.3 * r.standard_normal(n)], 1)
        return x, y, 2 * y + shortcut

    x, y, g = sample(800, 0.05, 1)
    tx, ty, tg = sample(800, 0.5, 2)
    result = worst_group(x, y, g, tx, ty, tg)
    each = [result[f"group {k}"].mean for k in range(4)]
    assert result["worst_group"].mean == min(each)
    counts = np.bincount(tg)
    assert result["average"].mean == pytest.approx(float(np.average(each, weights=counts)))
    unbalanced = worst_group(x, y, np.zeros(800, int), tx, ty, tg, draws=1)
    assert result["worst_group"].mean > unbalanced["worst_group"].mean + 0.1
    shuffled = worst_group(x, y, g, tx, ty, rng.permutation(tg))
    assert shuffled["average"].mean == result["average"].mean


def test_layers_of_a_network_are_tapped_in_order_and_pooled() -> None:
    encoder = networks.encoder("resnet10-narrow", image_size=32, stem="standard").eval()
    names = layer_names(encoder)
    assert names[-4:] == [f"model.layer{k}" for k in (1, 2, 3, 4)]
    x = torch.randn(3, 3, 32, 32)
    found = layer_features(encoder, x)
    assert list(found) == [*names, "h"]
    assert [found[f"model.layer{k}"].shape[1] for k in (1, 2, 3, 4)] == [32, 64, 128, 256]
    torch.testing.assert_close(found["model.layer4"], found["h"])  # this network averages its last map itself
    torch.testing.assert_close(found["h"], encoder(x))
    assert not any(module._forward_hooks for module in encoder.modules())
    only = layer_features(encoder, x, ["model.layer2"])
    assert list(only) == ["model.layer2", "h"]
    maps = encoder.model.layer2(encoder.model.layer1(encoder.model.act1(encoder.model.bn1(encoder.model.conv1(x)))))
    torch.testing.assert_close(only["model.layer2"], maps.mean((2, 3)))
    halves = layer_features(encoder, x, ["model.layer2"], grid=(2, 1))["model.layer2"]
    assert halves.shape == (3, 2 * 64)
    middle = maps.shape[2] // 2
    expected = torch.stack([maps[:, :, :middle].mean((2, 3)), maps[:, :, middle:].mean((2, 3))], dim=2).flatten(1)
    torch.testing.assert_close(halves, expected)


def test_transformers_series_scattering_and_heads() -> None:
    vit = networks.encoder("vit_tiny_patch16_224", image_size=28).eval()
    found = layer_features(vit, torch.randn(2, 3, 28, 28))
    assert all(value.shape == (2, 192) for value in found.values())
    assert len(found) == 13
    series = networks.series_encoder("resnet1d", channels=2, length=64, dim=16).eval()
    widths = [value.shape[1] for value in layer_features(series, torch.randn(3, 2, 64)).values()]
    assert widths[-1] == 16
    assert 32 in widths
    assert 64 in widths
    scattering = networks.scattering_encoder("scatsimclr-2", channels=1, angles=4).eval()
    found = layer_features(scattering, torch.rand(2, 1, 32, 32))
    assert found["model.scattering"].shape == (2, scattering.model.scattering.coefficients)
    assert found["h"].shape == (2, 1024)
    head = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    assert list(layer_features(head, torch.randn(2, 4))) == ["0", "1", "2", "h"]


def test_batches_are_stacked_layer_by_layer() -> None:
    head = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    parts = [layer_features(head, torch.ones(n, 4)) for n in (3, 2)]
    stacked = stack_layers(parts)
    assert {name: x.shape for name, x in stacked.items()} == {"0": (5, 6), "1": (5, 6), "h": (5, 6)}
    assert all(x.dtype == np.float32 for x in stacked.values())


def test_wrong_input_is_refused_in_one_line() -> None:
    (x, y), (tx, ty) = blobs(20, 0), blobs(20, 1)
    with pytest.raises(UserError, match="give the same"):
        layerwise({"h": x}, y, {"z": tx}, ty)
    with pytest.raises(UserError, match="choose from linear"):
        layerwise({"h": x}, y, {"h": tx}, ty, probes=("svm",))
    with pytest.raises(UserError, match="at least once"):
        worst_group(x, y, y, tx, ty, ty, draws=0)
    with pytest.raises(UserError, match="no 'layer9'"):
        layer_features(nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2), ["layer9"])
    with pytest.raises(UserError, match="at least one sample"):
        stack_layers([])

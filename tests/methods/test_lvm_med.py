"""LVM-Med as wired: its loss is the sheet's of its own embeddings and maps, and matching teaches an encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selftaught import methods, objectives, views
from selftaught.errors import UserError
from selftaught.methods.lvm_med import crop_boxes
from tests.methods.learning import assert_learns_waves

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "projector": "24-12", "augment": "small", "k": 2, "graph": 16}


def batch_for(method, n: int = 10, channels: int = 3, params: bool = False) -> dict:
    generator = torch.Generator().manual_seed(0)
    if params:
        images = torch.randint(0, 256, (n, channels, 24, 24), generator=generator, dtype=torch.uint8)
        rng = np.random.default_rng(0)
        drawn = [pipeline.sample_batch(rng, n, 24, 24) for pipeline in method.views()]
        return method.on_after_batch_transfer({"images": images, "params": drawn, "index": torch.arange(n)})
    made = [torch.randint(0, 256, (n, channels, 16, 16), generator=generator, dtype=torch.uint8) for _ in range(2)]
    return method.on_after_batch_transfer({"views": made, "index": torch.arange(n)})


@pytest.mark.parametrize("use_local", ["none", "feature", "location", "both"])
@pytest.mark.parametrize("second_order", [True, False])
def test_the_method_is_the_objective_of_its_own_embeddings(use_local: str, second_order: bool) -> None:
    torch.manual_seed(0)
    method = methods.LVMMed(use_local=use_local, second_order=second_order, gumbel_scale=0.0, **SMALL)
    batch = batch_for(method, params=True)
    z, maps = zip(*[(method.project(x), method.encoder.maps(x)) for x in batch["views"]], strict=True)
    edges = [objectives.knn_edges(one, 2) for one in z]
    hat = []
    for one, e in zip(z, edges, strict=True):
        a = torch.eye(10)
        a[e[:, 0], e[:, 1]] = 1
        a = a / (a.sum(1)[:, None] * a.sum(0)[None, :]).sqrt()
        inner = (a @ one @ method.messages.first.weight.T).clamp_min(0)
        hat.append(a @ inner @ method.messages.second.weight.T + one)
    vertex = F.normalize(hat[0]) @ F.normalize(hat[1]).T
    if use_local != "none":
        boxes = [crop_boxes(p, v) for p, v in zip(method.views(), batch["params"], strict=True)]
        centres = [objectives.grid_centres(b, 2, 2) for b in boxes] if use_local != "feature" else [None, None]
        only = use_local == "location"
        local = objectives.local_similarity(*maps, *centres, gamma=20, location_only=only)
        vertex = 0.8 * local + 0.2 * vertex
    edge = objectives.edge_affinity(*hat, *edges) if second_order else torch.zeros(len(edges[0]), len(edges[1]))
    p = objectives.match_graphs(vertex, edge, *edges)
    found = method.loss(batch)
    assert found["loss"].item() == pytest.approx((p != torch.arange(10)).float().mean().item())
    assert found["agreement"].item() == pytest.approx(vertex.diagonal().mean().item(), rel=1e-4)


def test_a_batch_is_divided_into_equal_graphs() -> None:
    torch.manual_seed(0)
    method = methods.LVMMed(gumbel_scale=0.0, **SMALL | {"graph": 5}).eval()
    batch = batch_for(method, 12)
    whole = method.loss(batch)["loss"].item()
    parts = []
    for start in (0, 4, 8):
        part = {"views": [v[start : start + 4] for v in batch["views"]], "index": batch["index"][start : start + 4]}
        parts.append(method.loss(part)["loss"].item())
    assert whole == pytest.approx(sum(parts) / 3)
    with pytest.raises(UserError, match="graph=1"):
        methods.LVMMed(**SMALL | {"graph": 1})


@pytest.mark.parametrize("channels", [1, 4])
def test_gradient_reaches_encoder_projector_and_messages(channels: int) -> None:
    torch.manual_seed(0)
    method = methods.LVMMed(channels=channels, one_forward=True, **SMALL)
    loss = method.loss(batch_for(method, channels=channels))["loss"]
    assert loss.item() > 0
    loss.backward()
    for part in (method.encoder, method.projector, method.messages):
        assert all(p.grad is not None for p in part.parameters())
        assert any(p.grad.abs().sum() > 0 for p in part.parameters())
    bare = methods.LVMMed(use_mpn=False, use_local="none", **SMALL)
    assert bare.messages is None
    bare.loss(batch_for(bare))["loss"].backward()
    assert bare.predict(batch_for(bare)).shape == (10, bare.encoder.dim)


def test_transformers_are_matched_by_their_patch_tokens() -> None:
    method = methods.LVMMed(
        encoder="vit_tiny_patch16_224", image_size=28, projector="24-12", augment="small", gumbel_scale=0.0
    )
    x = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    method.eval()
    z, maps = method.vertices(x)
    assert maps.shape == (3, 192, 7, 7)
    torch.testing.assert_close(maps, method.encoder.maps(x))
    torch.testing.assert_close(z, method.project(x))


def test_places_agree_with_the_pixels_of_the_views() -> None:
    """A picture whose value is its own row and column: each cell's mean is its centre's coordinates."""
    side = 64
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    image = torch.stack([rows, columns, rows]).to(torch.uint8)[None].expand(6, -1, -1, -1)
    pipeline = views.small(16, scale=(0.3, 1.0))[0]
    pipeline = views.Pipeline(pipeline.ops[:2])  # crop and flip alone
    params = pipeline.sample_batch(np.random.default_rng(0), 6, side, side)
    view = views.render_batch(image.contiguous(), pipeline, params).float()
    means = F.adaptive_avg_pool2d(view, 4)[:, :2].flatten(2).transpose(1, 2)
    boxes = crop_boxes(pipeline, params)
    assert set(boxes[:, 4].tolist()) == {0.0, 1.0}
    centres = objectives.grid_centres(boxes, 4, 4)
    assert (means + 0.5 - centres).abs().max() < 1.0  # pixel i covers i to i + 1


def test_location_without_crops_is_refused_and_both_goes_by_features() -> None:
    method = methods.LVMMed(use_local="location", **SMALL)
    with pytest.raises(UserError, match='view_device="model"'):
        method.loss(batch_for(method))
    torch.manual_seed(0)
    both = methods.LVMMed(use_local="both", gumbel_scale=0.0, **SMALL)
    expected = both.loss(batch_for(both))
    both.config.use_local = "feature"
    assert both.loss(batch_for(both))["agreement"].item() == expected["agreement"].item()
    with pytest.raises(UserError, match="no resized crop"):
        crop_boxes(views.Pipeline((views.HorizontalFlip(),)), np.zeros((1, 1)))


@pytest.mark.slow
def test_it_learns_waves(tmp_path) -> None:
    """First order, which learns faster; that the second order learns, too, is shown where the objective is tested.

    Views made on the model's device; those of the loader are what all other tests learn from.
    """
    options = {"second_order": False, "view_device": "model"}
    assert_learns_waves("lvm-med", tmp_path / "run", margin=0.06, steps=20, **options)

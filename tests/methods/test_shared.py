"""The shared wiring: views through the encoder, the momentum copy, classifiers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from selftaught.errors import UserError
from selftaught.methods._encoder import ClassifierMethod
from selftaught.methods._momentum import MomentumEmbedding

SMALL = {"encoder": "resnet10-narrow", "image_size": 16, "augment": "small"}


class Follower(MomentumEmbedding):
    slug = "follower"


class Plain(ClassifierMethod):
    slug = "plain"

    def loss(self, batch):
        return {"loss": cross_entropy(self.classifier(self.encoder(batch["views"][0])), batch["label"])}


@pytest.mark.parametrize("one_forward", [False, True])
def test_views_come_back_in_order_whatever_their_sizes(one_forward: bool) -> None:
    method = Follower(projector="8-4", one_forward=one_forward, **SMALL).eval()
    torch.manual_seed(0)
    xs = [torch.randn(3, 3, side, side) for side in (16, 16, 24, 16, 24, 24)]
    calls: list[tuple[int, ...]] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(x.shape))
        return method.project(x)

    found = method.embed_views(xs, network)
    for z, x in zip(found, xs, strict=True):
        torch.testing.assert_close(z, method.project(x), rtol=1e-4, atol=1e-5)
    assert len(calls) == (4 if one_forward else 6)


def test_the_copy_moves_by_its_decay_after_a_step_and_never_by_gradient() -> None:
    method = Follower(projector="8-4", target_decay=0.75, target_schedule="constant", **SMALL)
    before = {n: p.clone() for n, p in method.momentum.average.named_parameters()}
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(1.0)
    method.after_step()
    for name, parameter in method.momentum.average.named_parameters():
        moved = 0.25 if name.startswith("0.") else 0.0
        torch.testing.assert_close(parameter, before[name] + moved)
    assert not method.target(torch.randn(2, 3, 16, 16)).requires_grad
    names = [n for n, p in method.named_parameters() if p.requires_grad]
    assert not any(name.startswith("momentum") for name in names)


def test_the_recipe_repeats_and_alternates() -> None:
    method = Follower(projector="8-4", **SMALL | {"augment": "paper"})
    assert len(method.chosen_views(5)) == 5
    assert method.chosen_views(4)[0].ops == method.chosen_views(4)[2].ops


def test_a_classifier_needs_labels_and_delivers_logits() -> None:
    with pytest.raises(UserError, match="labels"):
        Plain(**SMALL)
    method = Plain(classes=3, **SMALL).eval()
    x = torch.randn(4, 3, 16, 16)
    logits = method.predict({"views": [x]})
    assert logits.shape == (4, 3)
    torch.testing.assert_close(method.deliverable()(x), logits)
    assert method.features({"views": [x]}).shape == (4, method.encoder.dim)


def test_probabilities_and_classes_are_written(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from selftaught.data import open_source
    from selftaught.run.applying import Job
    from selftaught.run.outputs import of

    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (7, 20, 20, 3), dtype=np.uint8)
    source = open_source(images, split="all")
    method = Plain(classes=3, **SMALL).eval()
    names = ["ant", "bee", "cat"]
    out = tmp_path / "classes.parquet"
    assert of("classes").apply(Job(method, source, out, workers=0, classes=names)) == 7
    table = pq.read_table(out).to_pydict()
    probabilities = np.array(table["probabilities"])
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert table["class"] == [names[k] for k in probabilities.argmax(1)]
    assert of("classes").apply(Job(method, source, tmp_path / "p.npy", workers=0, classes=names)) == 7
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), probabilities, rtol=1e-6)

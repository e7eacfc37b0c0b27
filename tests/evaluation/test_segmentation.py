"""Dense heads: masks that a map can and can't tell, mean IoU by hand, what is trained, what is ignored."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from selftaught import evaluation, networks
from selftaught.errors import UserError
from selftaught.evaluation.segmentation import _iou


class Halves(nn.Module):
    """A map at half the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2))

    def maps(self, x: Tensor) -> Tensor:
        return self.body(x)


def scenes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """A square of one of two colours on a dark ground: masks 0, 1, 2."""
    rng = np.random.default_rng(seed)
    x, y = torch.zeros(count, 3, 16, 16), torch.zeros(count, 16, 16, dtype=torch.int64)
    for i in range(count):
        kind, top, left = 1 + i % 2, 2 * int(rng.integers(0, 5)), 2 * int(rng.integers(0, 5))
        x[i, kind, top : top + 8, left : left + 8] = 1
        y[i, top : top + 8, left : left + 8] = kind
    return x + 0.05 * torch.from_numpy(rng.standard_normal(x.shape)).float(), y


@pytest.mark.parametrize("options", [{"epochs": 80}, {"tune": True}, {"tune": True, "eta": 0.1, "sampled": 32}])
def test_masks_are_learnt_and_the_encoder_is_left_alone(options: dict) -> None:
    torch.manual_seed(0)
    encoder = Halves().train()
    before = copy.deepcopy(encoder.state_dict())
    state = torch.random.get_rng_state()
    more = {"epochs": 15, "lr": 0.05, "batch": 8, "encoder_lr": 1e-3} | options
    found = evaluation.segmentation(encoder, *scenes(32, 0), *scenes(16, 1), **more)
    assert found["miou"].mean > 0.6
    assert found["miou"].low < found["miou"].mean < found["miou"].high
    assert found["pixel_accuracy"].mean > 0.85
    assert found.figures["history"][-1] < found.figures["history"][0]
    matrix = np.array(found.figures["confusion"]["matrix"])
    assert matrix.sum() == 16 * 256
    by_hand = [matrix[c, c] / (matrix[c].sum() + matrix[:, c].sum() - matrix[c, c]) for c in range(3)]
    assert found["miou"].mean == pytest.approx(np.mean(by_hand))
    assert [found[f"iou {c}"].mean for c in range(3)] == pytest.approx(by_hand)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert encoder.training


def test_ignored_pixels_count_for_nothing() -> None:
    torch.manual_seed(0)
    encoder, (x, y), (tx, ty) = Halves(), scenes(16, 0), scenes(8, 1)
    hidden = y.clone()
    hidden[:, :, :8] = 255
    found = evaluation.segmentation(encoder, x, hidden, tx, ty.where(ty > 0, torch.tensor(255)), epochs=2, batch=8)
    assert np.array(found.figures["confusion"]["matrix"]).sum() == int((ty > 0).sum())
    assert np.array(found.figures["confusion"]["matrix"])[0].sum() == 0


def test_iou_leaves_out_classes_that_do_not_occur() -> None:
    found = _iou(np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]))
    np.testing.assert_allclose(found[:2], [3 / 6, 4 / 7])
    assert np.isnan(found[2])


def test_an_encoder_of_the_toolkit_has_a_map() -> None:
    torch.manual_seed(0)
    encoder = networks.encoder("resnet10-narrow", channels=3, image_size=32, stem="small")
    x, y = (torch.nn.functional.interpolate(t.float() if t.dim() == 4 else t[:, None].float(), size=32) for t in
            scenes(4, 0))  # fmt: skip
    found = evaluation.segmentation(encoder, x, y[:, 0].long(), x, y[:, 0].long(), epochs=60, batch=4, lr=0.05)
    assert found["miou"].mean > 0.6, "no better than one class everywhere, which reaches a third"
    blind = evaluation.segmentation(
        encoder, torch.zeros_like(x), y[:, 0].long(), torch.zeros_like(x), y[:, 0].long(), epochs=60, batch=4, lr=0.05
    )
    assert blind["miou"].mean < 0.4, "there is nothing to see in these images"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_masks": torch.zeros(4, 8, 8).long()}, "train masks"),
        ({"test_masks": torch.full((4, 16, 16), 255)}, "none has a class"),
        ({"classes": 2}, "0 .. 1"),
        ({"eta": 1.0}, "only with tune"),
        ({"encoder": nn.Flatten()}, "no feature map"),
        ({"train_images": torch.zeros(4, 3, 16, 16, dtype=torch.uint8)}, "pass float"),
    ],
)
def test_errors_name_the_argument(change: dict, words: str) -> None:
    x, y = scenes(4, 0)
    given = {"encoder": Halves(), "train_images": x, "train_masks": y, "test_images": x, "test_masks": y} | change
    with pytest.raises(UserError, match=words):
        evaluation.segmentation(**given, epochs=1)

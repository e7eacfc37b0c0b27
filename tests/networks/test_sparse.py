"""Sparse convolutions against dense ones, the curves, the hybrid U-Net, nested masks, features per point."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from selftaught import networks
from selftaught.engine.checkpointing import recompute_activations
from selftaught.errors import UserError
from selftaught.networks import sparse, sparse_blocks
from selftaught.networks.curves import CURVES, curve_code, hilbert_code, z_order_code
from selftaught.networks.hunet import HUNet
from selftaught.networks.point_features import hierarchical_features, nested_masks
from selftaught.networks.sparse import (
    InverseConv,
    StridedConv,
    SubmanifoldConv,
    Voxels,
    pyramid,
    restricted,
    voxelise,
)
from selftaught.networks.sparse_blocks import RMSNorm, window_attention

G = torch.Generator().manual_seed(0)
SIDE = 8


def occupied(share: float = 0.3, scenes: int = 2) -> torch.Tensor:
    """Places (V, 4) of some voxels, in no order."""
    place = (torch.rand(scenes, SIDE, SIDE, SIDE, generator=G) < share).nonzero()
    return place[torch.randperm(len(place), generator=G)]


def dense(x: torch.Tensor, place: torch.Tensor, side: int = SIDE) -> torch.Tensor:
    grid = x.new_zeros(int(place[:, 0].max()) + 1, side, side, side, x.shape[1])
    grid[tuple(place.T)] = x
    return grid.permute(0, 4, 1, 2, 3)


def read(grid: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    return grid.permute(0, 2, 3, 4, 1)[tuple(place.T)]


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_submanifold_convolution_is_the_dense_one_at_occupied_places(kernel: int) -> None:
    place = occupied()
    x = torch.randn(len(place), 3, generator=G, dtype=torch.float64, requires_grad=True)
    conv = SubmanifoldConv(3, 5, kernel, bias=True).double()
    weight = conv.weight.reshape(kernel, kernel, kernel, 3, 5).permute(4, 3, 0, 1, 2)
    wanted = read(F.conv3d(dense(x, place), weight, conv.bias, padding=kernel // 2), place)
    found = conv(x, Voxels(place))
    torch.testing.assert_close(found, wanted)
    ours = torch.autograd.grad(found.square().sum(), [x, conv.weight])
    theirs = torch.autograd.grad(wanted.square().sum(), [x, conv.weight])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_strided_and_inverse_convolutions_are_the_dense_ones() -> None:
    place = occupied()
    voxels = Voxels(place)
    coarse = voxels.coarsen()
    x = torch.randn(len(place), 3, generator=G, dtype=torch.float64)
    down, up = StridedConv(3, 4).double(), InverseConv(4, 2).double()
    weight = down.weight.reshape(2, 2, 2, 3, 4).permute(4, 3, 0, 1, 2)
    half = F.conv3d(dense(x, place), weight, down.bias, stride=2)
    found = down(x, voxels)
    torch.testing.assert_close(found, read(half, coarse.place))
    weight = up.weight.reshape(2, 2, 2, 4, 2).permute(3, 4, 0, 1, 2)
    whole = F.conv_transpose3d(dense(found, coarse.place, SIDE // 2), weight, up.bias, stride=2)
    torch.testing.assert_close(up(found, voxels), read(whole, place))


def test_gradients_are_right_and_may_be_differentiated() -> None:
    place = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 3, 3, 3]])
    x = torch.randn(4, 2, generator=G, dtype=torch.float64, requires_grad=True)
    conv = SubmanifoldConv(2, 2).double()
    assert torch.autograd.gradcheck(lambda x, w: _applied(conv, x, w, place), (x, conv.weight))
    assert torch.autograd.gradgradcheck(lambda x, w: _applied(conv, x, w, place), (x, conv.weight))


def _applied(conv: SubmanifoldConv, x: torch.Tensor, weight: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    return torch.func.functional_call(conv, {"weight": weight}, (x, Voxels(place)))


def test_removing_voxels_is_not_the_same_as_zeroing_and_bad_places_are_refused() -> None:
    place = occupied(scenes=1)
    levels = pyramid(place, 3)
    hidden = nested_masks(levels, 0.5, generator=G)
    seen = restricted(levels, [~h for h in hidden])
    for all_, part, gone in zip(levels, seen, hidden, strict=True):
        torch.testing.assert_close(part.place, all_.place[~gone])
        fresh = Voxels(part.place)
        for a, b in zip(part.neighbours(), fresh.neighbours(), strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert set(zip(*map(torch.Tensor.tolist, a), strict=True)) == set(
                    zip(*map(torch.Tensor.tolist, b), strict=True)
                )
    torch.testing.assert_close(seen[1].place[seen[0].family()[1]][:, 1:], seen[0].place[:, 1:] >> 1)
    with pytest.raises(UserError, match="two voxels lie at one place"):
        Voxels(torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1]])).neighbours()
    with pytest.raises(UserError, match=r"features \(3, 2\) where there are 1 voxels"):
        SubmanifoldConv(2, 2)(torch.zeros(3, 2), Voxels(torch.zeros(1, 4, dtype=torch.long)))
    with pytest.raises(UserError, match="odd kernel"):
        levels[0].neighbours(2)


def test_voxels_count_from_each_scenes_corner_and_are_found_again() -> None:
    coord = torch.tensor([[-0.91, 0.0, 0.0], [-0.95, 0.01, 0.0], [5.0, 5, 5], [5.25, 5, 5]])
    place, which = voxelise(coord, torch.tensor([2, 4]), 0.1)
    assert place.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 2, 0, 0]]
    assert which.tolist() == [0, 0, 1, 2]
    voxels = Voxels(occupied())
    assert voxels.find(voxels.place).tolist() == list(range(len(voxels)))
    assert voxels.find(torch.tensor([[0, -1, 0, 0], [7, 0, 0, 0], [0, 99, 0, 0]])).tolist() == [-1, -1, -1]


# ---- curves ---------------------------------------------------------------------------------------------------------
def test_both_curves_fill_the_grid_and_hilberts_takes_steps_of_one() -> None:
    grid = torch.cartesian_prod(*[torch.arange(16)] * 3)
    for curve in CURVES:
        code = curve_code(grid, curve=curve, depth=4)
        torch.testing.assert_close(code.sort().values, torch.arange(4096))
        steps = grid[code.argsort()].diff(dim=0).abs().sum(1)
        assert (steps.max() == 1) == curve.startswith("hilbert")
    one = torch.tensor([[0b10, 0b01, 0b11]])
    assert z_order_code(one, 2).item() == 0b101011
    assert curve_code(one, torch.tensor([3]), "z", 2).item() == 3 << 6 | 0b101011
    assert curve_code(one, curve="z-trans", depth=2).item() == z_order_code(one[:, [1, 0, 2]], 2).item()
    with pytest.raises(UserError, match="use larger voxels"):
        hilbert_code(torch.tensor([[-1, 0, 0]]))


# ---- attention and the network --------------------------------------------------------------------------------------
def test_window_attention_is_attention_with_a_band() -> None:
    q, k, v = torch.randn(3, 2, 23, 4, generator=G)
    near = (torch.arange(23)[:, None] - torch.arange(23)).abs() <= 5
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=near)
    torch.testing.assert_close(window_attention(q, k, v, 5), wanted)
    torch.testing.assert_close(window_attention(q, k, v, 22), F.scaled_dot_product_attention(q, k, v))


def test_dropped_weights_are_the_bands_others_are_scaled_and_gradients_know_which(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n, reach, p = 150, 40, 0.25
    q, k = torch.randn(2, 2, n, 4, generator=G, dtype=torch.float64)
    torch.manual_seed(0)
    weights = window_attention(q, k, torch.eye(n).double().expand(2, n, n), reach, p)  # values of one place each
    near = (torch.arange(n)[:, None] - torch.arange(n)).abs() <= reach
    wanted = ((q @ k.mT) / 2).masked_fill(~near, -torch.inf).softmax(-1) / (1 - p)
    kept = weights != 0
    torch.testing.assert_close(weights[kept], wanted[kept])
    assert not kept[:, ~near].any()
    assert kept[:, near].double().mean().item() == pytest.approx(1 - p, abs=0.02)
    monkeypatch.setattr(sparse_blocks, "_ENTRIES", 2 * 7 * 3)  # three rows at a time
    parts = [t[:, :9].clone().requires_grad_() for t in (q, k, k + 1)]

    def seeded(*parts: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return window_attention(*parts, 3, 0.3)

    assert torch.autograd.gradcheck(seeded, parts)


def test_what_is_computed_again_has_the_gradients_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_blocks, "_ROWS", 3)
    monkeypatch.setattr(sparse, "_SPAN", 5)  # offsets with more pairs than that are several spans
    x = torch.randn(7, 2, generator=G, dtype=torch.float64, requires_grad=True)
    mlp, norm = sparse_blocks.GEGLU(2).double(), RMSNorm(2).double()
    a, b = mlp.up(x).chunk(2, -1)
    torch.testing.assert_close(mlp(x), mlp.down(F.gelu(a) * b))
    gain = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(norm(x, gain), norm(x) * gain)
    assert torch.autograd.gradcheck(lambda x, *_: mlp(x), (x, *mlp.parameters()))
    assert torch.autograd.gradcheck(lambda x, s, g: norm(x, g), (x, norm.scale, gain))
    zero = torch.zeros(2, 2, requires_grad=True)
    RMSNorm(2)(zero).sum().backward()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()
    place = occupied(scenes=1)
    conv = SubmanifoldConv(2, 3).double()
    assert len(sparse._joined(Voxels(place).neighbours()).spans) > 27
    x = torch.randn(len(place), 2, generator=G, dtype=torch.float64, requires_grad=True)
    weight = conv.weight.reshape(3, 3, 3, 2, 3).permute(4, 3, 0, 1, 2)
    wanted = read(F.conv3d(dense(x, place), weight, padding=1), place)
    found = conv(x, Voxels(place))
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad(y.square().sum(), (x, conv.weight)) for y in (found, wanted))
    torch.testing.assert_close(ours, theirs)


def test_rms_norm_has_eps_outside_the_root() -> None:
    x = torch.randn(3, 4, generator=G)
    torch.testing.assert_close(RMSNorm(4)(x), x / (x.square().mean(1, keepdim=True).sqrt() + 1e-4))
    assert (RMSNorm(4)(torch.zeros(1, 4)) == 0).all()


def test_the_papers_network_has_928_columns_and_the_sizes_of_the_sheet() -> None:
    with torch.device("meta"):
        net = HUNet()
    assert sum(net.widths) == 928
    assert net.widths == (64, 96, 128, 256, 384)
    assert [len(level.blocks) for level in net.encoder] == [2, 2, 2, 4, 4]
    assert [level.blocks[-1].attention.heads for level in net.encoder[3:]] == [32, 48]
    assert [level.blocks[-1].drop.p for level in net.encoder][-1] == pytest.approx(0.4)
    assert net.encoder[0].blocks[0].drop.p == 0
    assert net.decoder[4].blocks[0].drop.p == pytest.approx(0.4)
    with pytest.raises(UserError, match="as many of both"):
        HUNet(channels=(8, 16), up_channels=(8, 8))


def test_scenes_of_a_batch_do_not_see_each_other_and_order_does_not_matter() -> None:
    torch.manual_seed(0)
    net = HUNet(4, (8, 16, 16), (16, 16, 8), blocks=1, attention=1, window=16).eval()
    place = occupied(0.2)
    x = torch.randn(len(place), 4, generator=G)
    whole = net(x, pyramid(place, 3))[0]
    one = place[:, 0] == 1
    alone = place[one].clone()
    alone[:, 0] = 0
    torch.testing.assert_close(net(x[one], pyramid(alone, 3))[0], whole[one], atol=1e-5, rtol=1e-4)
    order = torch.randperm(len(place), generator=G)
    torch.testing.assert_close(net(x[order], pyramid(place[order], 3))[0], whole[order], atol=1e-5, rtol=1e-4)
    again = HUNet(4, (8, 16, 16), (16, 16, 8), blocks=1, attention=1, window=16, drop_path=0, dropout=0)
    again.load_state_dict(net.state_dict())
    net.drop_path = None
    found = recompute_activations(again.eval())
    assert (
        len(found) == sum(type(m).__name__ in ("SparseResBlock", "SparseTransformerBlock") for m in again.modules()) > 5
    )
    torch.testing.assert_close(again(x, pyramid(place, 3))[0], whole)
    one, other = (
        torch.autograd.grad(n(x, pyramid(place, 3))[0].square().sum(), list(n.stem.parameters())) for n in (again, net)
    )
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


# ---- masks ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("patch", [1, 2])
def test_masks_are_nested_and_hide_the_asked_share(patch: int) -> None:
    levels = pyramid(occupied(0.3), 3)
    hidden = nested_masks(levels, 0.4, patch=patch, generator=G)
    for scene in (0, 1):
        mine = levels[-1].place[:, 0] == scene
        assert int(hidden[-1][mine].sum()) == round(0.4 * int(mine.sum()))
    for at in (0, 1):
        torch.testing.assert_close(hidden[at], hidden[at + 1][levels[at].family()[1]])
    down = nested_masks(levels, 0.9, order="top-down", generator=G)
    for at in (0, 1):
        parent = levels[at].family()[1]
        for k in range(len(levels[at + 1])):
            assert bool(down[at + 1][k]) == bool(down[at][parent == k].all())
    assert not nested_masks(levels, 0)[0].any()
    with pytest.raises(UserError, match="mask ratio 1"):
        nested_masks(levels, 1.0)


# ---- features per point ---------------------------------------------------------------------------------------------
def test_features_are_what_grid_sample_reads_of_the_dense_grid() -> None:
    place = occupied(0.4, scenes=1)
    place = torch.cat((place, torch.tensor([[0, 7, 7, 7]]))).unique(dim=0)
    levels = pyramid(place, 3)
    outputs = [torch.randn(len(level), 2, generator=G, dtype=torch.float64) for level in levels]
    grid = place[:, 1:]
    offset = torch.tensor([len(place)])
    wanted, near = [], []
    for at, (x, level) in enumerate(zip(outputs, levels, strict=True)):
        size = level.place[:, 1:].amax(0) + 1
        volume = x.new_zeros(1, 2, *size.tolist())
        volume[0][(slice(None), *level.place[:, 1:].T)] = x.T
        where = ((grid.double() + 0.5) / 2**at) / size * 2 - 1
        where = where.flip(1)[None, None, None]
        for mode, kept in (("bilinear", wanted), ("nearest", near)):
            kept.append(F.grid_sample(volume, where, mode=mode, align_corners=True)[0, :, 0, 0].T)
    position = grid.double() + 0.5
    torch.testing.assert_close(hierarchical_features(outputs, levels, position, offset), torch.cat(wanted, 1))
    found = hierarchical_features(outputs, levels, position, offset, interpolation="nearest")
    torch.testing.assert_close(found, torch.cat(near, 1))
    one = hierarchical_features(outputs, levels, position, offset, used=[2])
    torch.testing.assert_close(one, wanted[2])
    exact = hierarchical_features(outputs, levels, position, offset, used=[0], parity=False)
    torch.testing.assert_close(exact, outputs[0])


def test_a_constant_stays_constant_inside_and_points_may_come_in_any_order() -> None:
    place = torch.cartesian_prod(torch.tensor([0]), *[torch.arange(8)] * 3)
    levels = pyramid(place, 2)
    outputs = [torch.full((len(level), 1), 3.0) for level in levels]
    position = 2 + 4 * torch.rand(20, 3, generator=G)
    offset = torch.tensor([20])
    for parity in (True, False):
        torch.testing.assert_close(
            hierarchical_features(outputs, levels, position, offset, parity=parity), torch.full((20, 2), 3.0)
        )
    outputs = [torch.randn(len(level), 3, generator=G) for level in levels]
    found = hierarchical_features(outputs, levels, position, offset)
    order = torch.randperm(20, generator=G)
    torch.testing.assert_close(hierarchical_features(outputs, levels, position[order], offset), found[order])
    lonely = pyramid(torch.tensor([[0, 0, 0, 0], [0, 5, 5, 5]]), 1)
    at = torch.tensor([[0.8, 0.5, 0.5]])
    for empty, wanted in (("zero", 0.7), ("ignore", 1.0)):
        got = hierarchical_features([torch.ones(2, 1)], lonely, at, torch.tensor([1]), parity=False, empty=empty)
        assert got.item() == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(UserError, match="trilinear or nearest"):
        hierarchical_features(outputs, levels, position, offset, interpolation="cubic")
    assert networks.hierarchical_features is hierarchical_features

"""The renderer of Gaussians against a literal loop over pixels, its limits, its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.networks.gaussians import Gaussians, gaussian_covariance, project_gaussians, quaternion_rotation
from selftaught.networks.splatting import _chosen, render_gaussians

K = torch.tensor([[20.0, 0, 8.5], [0, 22.0, 6], [0, 0, 1]], dtype=torch.float64)
W = torch.eye(4, dtype=torch.float64)
SIZE = (12, 17)


def scene(count: int, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    means = 2 * rand(count, 3) - 1
    means[:, 2] += 3
    turns = torch.randn(count, 4, generator=g, dtype=torch.float64)
    return Gaussians(means, turns, 0.1 * rand(count, 3) + 0.02, 0.5 * rand(count) + 0.2, rand(count, 3))


def camera(seed: int = 1) -> Tensor:
    """A camera turned and moved a little."""
    turn = quaternion_rotation(torch.tensor([1.0, 0.05, -0.1, 0.2], dtype=torch.float64))
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = turn, torch.tensor([0.1, -0.05, 0.2])
    return pose


def literal(g: Gaussians, pose: Tensor, background: Tensor, centre: float) -> tuple[Tensor, Tensor]:
    """The sheet's equations, pixel by pixel and Gaussian by Gaussian."""
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    image, depth = torch.zeros(3, *SIZE, dtype=torch.float64), torch.zeros(SIZE, dtype=torch.float64)
    rotation = pose[:3, :3]
    flat = []
    for mu, q, s in zip(g.means, g.quaternions, g.scales, strict=True):
        x, y, z = rotation @ mu + pose[:3, 3]
        w, a, b, c = q / q.norm()
        r = torch.tensor(
            [
                [1 - 2 * (b * b + c * c), 2 * (a * b - w * c), 2 * (a * c + w * b)],
                [2 * (a * b + w * c), 1 - 2 * (a * a + c * c), 2 * (b * c - w * a)],
                [2 * (a * c - w * b), 2 * (b * c + w * a), 1 - 2 * (a * a + b * b)],
            ],
            dtype=torch.float64,
        )
        sigma = r @ torch.diag(s**2) @ r.T
        u = torch.clamp(x / z, -1.3 * SIZE[1] / 2 / fx, 1.3 * SIZE[1] / 2 / fx)
        v = torch.clamp(y / z, -1.3 * SIZE[0] / 2 / fy, 1.3 * SIZE[0] / 2 / fy)
        j = torch.tensor([[fx / z, 0, -fx * u / z], [0, fy / z, -fy * v / z]], dtype=torch.float64)
        flat.append((z, torch.stack((fx * x / z + cx, fy * y / z + cy)), j @ rotation @ sigma @ rotation.T @ j.T))
    order = sorted(range(len(flat)), key=lambda i: float(flat[i][0]))
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            left = torch.tensor(1.0, dtype=torch.float64)
            for i in order:
                z, at, sigma = flat[i]
                if z < 0.2:
                    continue
                d = torch.tensor([column + centre, row + centre], dtype=torch.float64) - at
                inverse = torch.linalg.inv(sigma + 0.3 * torch.eye(2, dtype=torch.float64))
                alpha = min(0.99, float(g.opacities[i] * torch.exp(-0.5 * d @ inverse @ d)))
                if alpha < 1 / 255:
                    continue
                image[:, row, column] += left * alpha * g.colours[i]
                depth[row, column] += left * alpha * z
                left = left * (1 - alpha)
            image[:, row, column] += left * background
    return image, depth


@pytest.mark.parametrize("centre", [0.5, 0.0])
def test_it_is_the_sheets_equation(centre: float) -> None:
    g = scene(14)
    g.means[0, 2], g.means[1] = 0.0, torch.tensor([4.0, 0.2, 2.0])  # too near; far beside the picture
    g.opacities[2] = 1.0  # held at 0.99
    background = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    made = render_gaussians(g, K, camera(), SIZE, background, pixel_centre=centre, tile=5)
    image, depth = literal(g, camera(), background, centre)
    torch.testing.assert_close(made.image, image, rtol=0, atol=1e-10)
    torch.testing.assert_close(made.depth, depth, rtol=0, atol=1e-10)


def test_tiles_change_nothing() -> None:
    g = scene(40, 3)
    whole, *cut = (render_gaussians(g, K, camera(), SIZE, 0.3, tile=t) for t in (64, 1, 7, 16))
    for other in cut:
        for a, b in zip(whole, other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    inputs = [*scene(5), camera(), torch.rand(3, dtype=torch.float64), K.clone()]
    inputs = [x.clone().requires_grad_() for x in inputs]

    def rendered(*parts: Tensor) -> tuple[Tensor, ...]:
        return tuple(render_gaussians(Gaussians(*parts[:5]), parts[7], parts[5], (4, 6), parts[6], tile=3))

    assert torch.autograd.gradcheck(rendered, inputs, eps=1e-6, atol=1e-7, rtol=1e-5)


def test_one_round_gaussian_is_a_gaussian_of_the_pinhole_camera() -> None:
    f, z, s, peak = 40.0, 2.0, 0.15, 0.7
    k = torch.tensor([[f, 0, 10.5], [0, f, 10.5], [0, 0, 1]], dtype=torch.float64)
    one = Gaussians(
        torch.tensor([[0.0, 0, z]], dtype=torch.float64), torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64),
        torch.full((1, 3), s, dtype=torch.float64), torch.tensor([peak], dtype=torch.float64),
        torch.ones(1, 1, dtype=torch.float64),
    )  # fmt: skip
    alpha = render_gaussians(one, k, W, (21, 21)).alpha
    y, x = torch.meshgrid(*[torch.arange(21, dtype=torch.float64) - 10] * 2, indexing="ij")
    wanted = peak * torch.exp(-0.5 * (x * x + y * y) / ((f * s / z) ** 2 + 0.3))
    torch.testing.assert_close(alpha, wanted.where(wanted >= 1 / 255, torch.zeros_like(wanted)))
    assert alpha[10, 10] == pytest.approx(peak)
    turned = one._replace(quaternions=torch.tensor([[0.3, -1.0, 0.2, 0.7]], dtype=torch.float64))
    torch.testing.assert_close(render_gaussians(turned, k, W, (21, 21)).alpha, alpha)


def test_two_on_one_ray_and_their_order() -> None:
    k = torch.tensor([[40.0, 0, 4.5], [0, 40, 4.5], [0, 0, 1]], dtype=torch.float64)
    means = torch.tensor([[0.0, 0, 2], [0, 0, 3]], dtype=torch.float64)
    turns = torch.tensor([[1.0, 0, 0, 0]] * 2, dtype=torch.float64)
    o, c = torch.tensor([0.6, 0.8], dtype=torch.float64), torch.tensor([[1.0], [0.25]], dtype=torch.float64)
    g = Gaussians(means, turns, torch.full((2, 3), 0.2, dtype=torch.float64), o, c)
    middle = render_gaussians(g, k, W, (9, 9)).image[0, 4, 4]
    assert middle.item() == pytest.approx(0.6 * 1.0 + 0.4 * 0.8 * 0.25)
    swapped = g._replace(means=means.flip(0))
    assert render_gaussians(swapped, k, W, (9, 9)).image[0, 4, 4].item() == pytest.approx(0.8 * 0.25 + 0.2 * 0.6 * 1.0)


def test_invariances() -> None:
    g, background = scene(20, 5), torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    made = render_gaussians(g, K, camera(), SIZE, background).image
    for other in (g._replace(quaternions=-3 * g.quaternions), Gaussians(*(part.flip(0) for part in g))):
        torch.testing.assert_close(render_gaussians(other, K, camera(), SIZE, background).image, made)
    nothing = render_gaussians(
        g._replace(opacities=torch.zeros(20, dtype=torch.float64)), K, camera(), SIZE, background
    )
    torch.testing.assert_close(nothing.image, background[:, None, None].expand(3, *SIZE))
    assert not nothing.alpha.any()
    none = Gaussians(*(part[:0] for part in g))
    torch.testing.assert_close(render_gaussians(none, K, camera(), SIZE, background).image, nothing.image)


def test_a_mirrored_world_with_its_camera_makes_the_same_picture() -> None:
    g, mirror = scene(15, 6), torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
    turn = quaternion_rotation(g.quaternions)
    means = g.means * torch.tensor([-1.0, 1, 1], dtype=torch.float64)
    w, x, y, z = g.quaternions.unbind(1)
    other = g._replace(means=means, quaternions=torch.stack((w, x, -y, -z), 1))
    torch.testing.assert_close(
        gaussian_covariance(g.scales, other.quaternions),
        mirror[:3, :3] @ turn @ torch.diag_embed(g.scales**2) @ turn.transpose(1, 2) @ mirror[:3, :3],
    )
    torch.testing.assert_close(
        render_gaussians(other, K, camera() @ mirror, SIZE).image, render_gaussians(g, K, camera(), SIZE).image
    )


def test_float32_and_half_agree_with_float64() -> None:
    g = scene(30, 7)
    exact = render_gaussians(g, K, camera(), SIZE, 0.5)
    single = render_gaussians(Gaussians(*(part.float() for part in g)), K, camera(), SIZE, 0.5)
    assert single.image.dtype == torch.float32
    torch.testing.assert_close(single.image.double(), exact.image, rtol=0, atol=1e-4)
    assert render_gaussians(Gaussians(*(part.bfloat16() for part in g)), K, W, SIZE).image.dtype == torch.float32


def test_wrong_input_is_refused() -> None:
    g = scene(3)
    with pytest.raises(UserError, match="shapes"):
        render_gaussians(g._replace(opacities=g.opacities[:, None]), K, W, SIZE)
    with pytest.raises(UserError, match="CUDA"):
        render_gaussians(g, K, W, SIZE, backend="gsplat")
    with pytest.raises(UserError, match="backend"):
        render_gaussians(g, K, W, SIZE, backend="opengl")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="size"):
        render_gaussians(g, K, W, (0, 3))
    with pytest.raises(UserError, match="intrinsics"):
        project_gaussians(g, K[None], W, SIZE)
    with pytest.raises(UserError, match="scales"):
        gaussian_covariance(g.scales[:2], g.quaternions)
    with pytest.raises(UserError, match="quaternions"):
        quaternion_rotation(g.means)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="gsplat renders on CUDA alone")
def test_gsplat_on_cuda_makes_the_same_picture_and_gradients() -> None:
    pytest.importorskip("gsplat")
    found = []
    for device, backend in (("cpu", "torch"), ("cuda", "gsplat")):
        given = [
            x.float().to(device).requires_grad_() for x in (*scene(40, 3), camera(), torch.tensor([0.2, 0.5, 0.9]))
        ]
        made = render_gaussians(
            Gaussians(*given[:5]), K.float().to(device), given[5], SIZE, given[6], pixel_centre=0.0, backend=backend
        )
        (made.image.square().sum() + made.depth.sum() + made.alpha.square().sum()).backward()
        found.append([x.detach().cpu() for x in made] + [x.grad.cpu() for x in given])
    for ours, theirs in zip(*found, strict=True):  # gsplat cuts faint edges off and stops at 1e-4 of the light
        assert (theirs - ours).abs().mean() < 3e-3 * ours.abs().max()
        assert (theirs - ours).abs().max() < 5e-2 * ours.abs().max()


def test_gsplat_is_refused_what_it_cannot_do() -> None:
    device = torch.device("cuda")
    for dtype, learns in ((torch.float64, False), (torch.float32, True)):
        assert _chosen("auto", device, dtype, learns) == "torch"
        with pytest.raises(UserError, match="intrinsics"):
            _chosen("gsplat", device, dtype, learns)

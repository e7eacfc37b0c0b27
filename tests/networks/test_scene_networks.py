"""Point tokens, complementary masks, the scene autoencoder, Gaussians' head, moved cameras, volume rendering."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.networks.gaussians import Gaussians
from selftaught.networks.point_tokens import (
    PointTransformer,
    farthest_points,
    nearest_points,
    point_patches,
    take_points,
)
from selftaught.networks.scene_autoencoder import (
    GaussianHead,
    SceneAutoencoder,
    complementary_masks,
    patches_on_image,
    project_points,
)
from selftaught.networks.scene_views import (
    centred_scene,
    cropped_view,
    moved_scene,
    random_motion,
    resized_intrinsics,
    world_to_camera,
)
from selftaught.networks.splatting import render_gaussians
from selftaught.networks.transformer import VisionTransformer
from selftaught.networks.volume_rendering import pixel_rays, render_rays

G = torch.Generator().manual_seed(0)


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=G)


def test_farthest_points_by_the_definition() -> None:
    points = rand(2, 30, 3)
    found = farthest_points(points, 8, torch.tensor([3, 5]))
    for cloud, chosen, first in zip(points.numpy(), found.tolist(), (3, 5), strict=True):
        taken = [first]
        while len(taken) < 8:
            away = ((cloud[:, None] - cloud[taken][None]) ** 2).sum(2).min(1)
            taken.append(int(away.argmax()))
        assert chosen == taken
    with pytest.raises(UserError, match="31 farthest"):
        farthest_points(points, 31)


def test_patches_are_the_nearest_points_about_their_centre() -> None:
    points = rand(2, 40, 6)
    found = point_patches(points, 5, 7, 0)
    distance = np.linalg.norm(points[:, None, :, :3].numpy() - found.centres[:, :, None].numpy(), axis=3)
    assert (np.sort(distance.argsort(2)[:, :, :7], 2) == np.sort(found.numbers.numpy(), 2)).all()
    torch.testing.assert_close(
        found.points[..., :3] + found.centres[:, :, None], take_points(points, found.numbers)[..., :3]
    )
    torch.testing.assert_close(found.points[..., 3:], take_points(points, found.numbers)[..., 3:])
    with pytest.raises(UserError, match="41 neighbours"):
        nearest_points(points[..., :3], found.centres, 41)


def test_an_encoder_of_clouds_forgets_order_and_place() -> None:
    torch.manual_seed(0)
    encoder = PointTransformer(3, 32, 2, 2, patches=8, k=6).eval()
    assert encoder.dim == 64
    points = rand(2, 50, 3)
    order = torch.cat((torch.zeros(1, dtype=torch.long), 1 + torch.randperm(49, generator=G)))  # the first centre stays
    embedded = encoder(points)
    torch.testing.assert_close(encoder(points[:, order]), embedded, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(points + 3), embedded, rtol=1e-3, atol=1e-4)
    assert encoder(points[:, :4]).shape == (2, 64)  # fewer points than patches and neighbours
    with pytest.raises(UserError, match="clouds of shape"):
        encoder(rand(2, 50, 6))


def test_an_embedding_is_the_pointnet_of_the_sheet() -> None:
    torch.manual_seed(0)
    encoder = PointTransformer(3, 256, 3, 4)
    shapes = [
        tuple(p.shape) for name, p in encoder.embed.named_parameters() if name.endswith("weight") and p.dim() == 2
    ]
    assert shapes == [(128, 3), (256, 128), (256, 512)]
    assert len(encoder.blocks) == 3
    assert encoder.blocks[0].attn.heads == 4


# ---- masks -----------------------------------------------------------------------------------------------------------
def test_projection_and_patches_are_the_pinhole_camera() -> None:
    k, pose = torch.tensor([[[50.0, 0, 20], [0, 60, 10], [0, 0, 1]]]), torch.eye(4)[None].clone()
    pose[0, :3, 3] = torch.tensor([0.1, 0.2, 1.0])
    points = torch.tensor([[[0.0, 0, 1], [0.3, -0.1, 3], [0, 0, -4], [9, 0, 1]]])
    at, z = project_points(points, k, pose)
    x, y, depth = 0.3 + 0.1, -0.1 + 0.2, 4.0
    torch.testing.assert_close(at[0, 1], torch.tensor([50 * x / depth + 20, 60 * y / depth + 10]))
    assert z[0].tolist() == [2, 4, -3, 2]
    on = patches_on_image(points, k, pose, (32, 48), 16)
    assert on.tolist() == [[1 * 3 + 1, 0 * 3 + 1, -1, -1]]
    edge = torch.tensor([[[-0.4 - 0.105, 0.0, 1.0]]])  # falls on x = 9.875
    assert patches_on_image(edge, k, pose, (32, 48), 10, pixel_centre=0.0).item() % 4 == 1  # its pixel is the eleventh
    assert patches_on_image(edge, k, pose, (32, 48), 10, pixel_centre=0.5).item() % 4 == 0


def test_what_is_visible_of_one_is_hidden_of_the_other() -> None:
    torch.manual_seed(0)
    falls = torch.arange(20)[None, :, None].repeat(3, 1, 2)  # patch i of the points lies on patch i of 40
    masks = complementary_masks(falls, 40, 0.6, 0.75)
    assert masks.points.sum(1).tolist() == [12] * 3
    assert masks.image.sum(1).tolist() == [30] * 3
    assert masks.image[:, :20][~masks.points].all()
    same = complementary_masks(falls, 40, 0.6, 0.75, alignment="same")
    assert not same.image[:, :20][~same.points].any()
    other = complementary_masks(falls, 40, 0.6, 0.5, first="image")
    counts = (~other.image[:, :20]).sum(1)
    for hidden, image, count in zip(other.points, other.image, counts, strict=True):
        assert hidden[~image[:20]].sum() == min(12, int(count))
    nowhere = complementary_masks(torch.full((2, 20, 2), -1), 40)
    assert nowhere.image.sum(1).tolist() == [30, 30]
    many = [complementary_masks(falls[:1], 40, 0.6, 0.75, alignment="random").image[0, :20] for _ in range(200)]
    assert abs(torch.stack(many).float().mean().item() - 0.75) < 0.05
    for bad in ({"point_ratio": 1.5}, {"alignment": "none"}, {"first": "both"}):
        with pytest.raises(UserError):
            complementary_masks(falls, 40, **bad)  # type: ignore[arg-type]


def test_an_autoencoder_sees_nothing_of_what_is_hidden() -> None:
    torch.manual_seed(0)
    encoder = PointTransformer(3, 32, 1, 2, patches=8, k=6)
    pictures = VisionTransformer((16, 16), (8, 8), dim=32, depth=1, heads=2, positions="sincos", class_token=False)
    whole = SceneAutoencoder(encoder, pictures, joint=1, joint_decoder=1, decoder=1, heads=2).eval()
    points, image = rand(2, 60, 3), rand(2, 3, 16, 16)
    patches = encoder.cut(points)
    masks = complementary_masks(torch.full((2, 8, 1), -1), 4, 0.5, 0.5)
    middle = points.mean(1)
    answer = whole(patches, middle, image, masks)
    assert answer.points.shape == (2, 8, 6, 3)
    assert answer.image.shape == answer.cross.new_zeros(2, 4, 192).shape
    assert answer.cross.shape == (2, 8, 192)
    other = patches._replace(points=patches.points.where(~masks.points[:, :, None, None], rand(2, 8, 6, 3)))
    pixels = image.clone()
    for n, hidden in enumerate(masks.image):
        for at in hidden.nonzero()[:, 0].tolist():
            pixels[n, :, at // 2 * 8 : at // 2 * 8 + 8, at % 2 * 8 : at % 2 * 8 + 8] = rand(3, 8, 8)
    again = whole(other, middle, pixels, masks)
    for a, b in zip(answer, again, strict=True):
        torch.testing.assert_close(a, b)
    alone = SceneAutoencoder(encoder, None, joint=1, decoder=1, heads=2)(patches, middle, None, masks)
    assert alone.image is None
    assert alone.cross is None
    assert SceneAutoencoder(None, pictures, joint=1, decoder=1, heads=2)(None, None, image, masks).points is None
    with pytest.raises(UserError, match="needs a branch"):
        SceneAutoencoder(None, None)


def test_gaussians_begin_where_their_points_are() -> None:
    torch.manual_seed(0)
    head = GaussianHead(32, reach=0.05, scale=0.04, opacity=0.3)
    points, centres = rand(2, 4, 5, 3) - 0.5, rand(2, 4, 3)
    made = head(rand(2, 4, 32), points, centres)
    assert made.means.shape == (2, 20, 3)
    assert (made.means - (points + centres[:, :, None]).flatten(1, 2)).abs().max() <= 0.05
    assert made.opacities.mean().item() == pytest.approx(0.3, abs=0.05)
    assert made.scales.mean().item() == pytest.approx(0.04, rel=0.1)
    still = GaussianHead(32, reach=0.0)(rand(2, 4, 32), points, centres)
    torch.testing.assert_close(still.means, (points + centres[:, :, None]).flatten(1, 2))


# ---- cameras ---------------------------------------------------------------------------------------------------------
def test_a_scene_that_moves_with_its_camera_looks_the_same() -> None:
    points = torch.cat((rand(3, 20, 3) - 0.5 + torch.tensor([0, 0, 3.0]), rand(3, 20, 3)), 2)
    pose = torch.eye(4).repeat(3, 1, 1)
    pose[:, :3, 3] = rand(3, 3) * 0.2
    k = torch.tensor([[50.0, 0, 20], [0, 60, 10], [0, 0, 1]]).repeat(3, 1, 1)
    camera = world_to_camera(pose)
    at, z = project_points(points[..., :3], k, camera)
    motion, scale = random_motion(3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(motion @ motion.transpose(1, 2), torch.eye(3).repeat(3, 1, 1))
    assert set(torch.linalg.det(motion).round().tolist()) == {-1.0, 1.0}
    moved, seen = moved_scene(points, motion, scale, camera)
    other, far = project_points(moved[..., :3], k, seen)
    torch.testing.assert_close(other, at, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(far, z * scale[:, None], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved[..., 3:], points[..., 3:])
    middle, centred = centred_scene(points, camera)
    torch.testing.assert_close(middle[..., :3].mean(1), torch.zeros(3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(project_points(middle[..., :3], k, centred)[0], at, rtol=1e-4, atol=1e-3)


def test_crops_take_their_intrinsics_along() -> None:
    k = torch.tensor([[[50.0, 0, 20], [0, 60, 10], [0, 0, 1]]])
    half = resized_intrinsics(k, 0.5, 0.5)
    assert half[0, :2].tolist() == [[25.0, 0, 9.75], [0, 30.0, 4.75]]
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    image = torch.stack((x, y))[None].repeat(4, 1, 1, 1)  # every pixel says where it was
    made, cameras = cropped_view(image, k.repeat(4, 1, 1), 0.5, torch.Generator().manual_seed(2))
    for picture, camera in zip(made, cameras, strict=True):
        ray = [(picture[0, 24, 32] - 20) / 50, (picture[1, 24, 32] - 10) / 60]
        again = [camera[0, 0] * ray[0] + camera[0, 2], camera[1, 1] * ray[1] + camera[1, 2]]
        torch.testing.assert_close(torch.stack(again), torch.tensor([32.0, 24.0]), atol=0.1, rtol=0)
    same, camera = cropped_view(image, k.repeat(4, 1, 1), 1.0)
    assert same is image


# ---- volume rendering ------------------------------------------------------------------------------------------------
def test_a_ray_meets_what_a_splat_shows() -> None:
    """A wall of dense Gaussians: both renderers see its colour at its depth."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 21), torch.linspace(-1, 1, 21), indexing="ij")
    means = torch.stack((x.flatten(), y.flatten(), torch.full((441,), 3.0)), 1)
    colours = torch.tensor([[0.2, 0.6, 0.9]]).repeat(441, 1)
    wall = Gaussians(
        means, torch.eye(4)[:1].repeat(441, 1), torch.full((441, 3), 0.08), torch.full((441,), 0.95), colours
    )
    k = torch.tensor([[30.0, 0, 8], [0, 30, 8], [0, 0, 1]])
    pose = torch.eye(4)
    splatted = render_gaussians(wall, k, pose, (17, 17), pixel_centre=0.0)
    pixels = torch.tensor([[8.0, 8.0], [6.0, 9.0]])
    origins, directions = pixel_rays(pixels, k, pose)
    colour, depth, alpha = render_rays(wall, origins, directions, samples=200, far=5.0, background=1.0)
    torch.testing.assert_close(colour, colours[:2], atol=0.02, rtol=0)
    torch.testing.assert_close(depth, torch.full((2,), 3.0), atol=0.25, rtol=0)
    assert alpha.min() > 0.97
    torch.testing.assert_close(splatted.image[:, 8, 8], colours[0], atol=0.02, rtol=0)
    empty, _, nothing = render_rays(wall, origins + 50, directions, background=0.25)
    assert nothing.abs().max() < 1e-6
    torch.testing.assert_close(empty, torch.full((2, 3), 0.25))
    with pytest.raises(UserError, match="near < far"):
        render_rays(wall, origins, directions, near=3.0, far=2.0)

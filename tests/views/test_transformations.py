"""The discrete sets against reference numbers, their group structure, and the random operations around them."""

import math

import numpy as np
import pytest
import torch

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import transformations as tf

SIZES = {
    "identity": 1,
    "rotation": 4,
    "rotation2": 2,
    "color_perm": 6,
    "color_perm3": 3,
    "rot_color_perm6": 6,
    "rot_color_perm12": 12,
    "rot_color_perm24": 24,
}


def pictures(count=3, channels=3, side=5, seed=0):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SIZES)
def test_copies_are_interleaved_the_first_is_the_image_bit_for_bit(name):
    x = pictures()
    found = tf.copies(x, name)
    count = SIZES[name]
    assert set(tf.TRANSFORMATION_SETS) == set(SIZES)
    assert found.shape == (3 * count, 3, 5, 5)
    assert torch.equal(found[::count], x)
    for b in range(3):
        for j, function in enumerate(tf.transformations(name)):
            assert torch.equal(found[b * count + j], function(x[b : b + 1])[0])
    distinct = {found[j].numpy().tobytes() for j in range(count)}
    assert len(distinct) == count


def test_rotations_are_counter_clockwise_as_numpy_turns():
    x = pictures(1)
    for k, turned in enumerate(tf.copies(x, "rotation")):
        assert np.array_equal(turned.numpy(), np.rot90(x[0].numpy(), k, axes=(1, 2)))
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    flat = tf.copies(image, "rotation").view(4, 4).tolist()
    assert flat == [[1, 2, 3, 4], [2, 4, 1, 3], [4, 3, 2, 1], [3, 1, 4, 2]]


def test_colour_orders_and_products_are_the_papers():
    x = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1)  # red, green, blue
    values = [row.flatten().tolist() for row in tf.copies(x, "color_perm")]
    letters = {"R": 10.0, "G": 20.0, "B": 30.0}
    assert values == [[letters[c] for c in order] for order in ("RGB", "RBG", "GRB", "GBR", "BRG", "BGR")]
    assert [row.flatten().tolist() for row in tf.copies(x, "color_perm3")] == [values[0], values[3], values[4]]
    y = pictures(1)
    twelve = tf.copies(y, "rot_color_perm12")
    for k in range(4):
        for c, order in enumerate(((0, 1, 2), (1, 2, 0), (2, 0, 1))):
            assert torch.equal(twelve[3 * k + c], torch.rot90(y, k, (2, 3))[0, list(order)])
    assert torch.equal(tf.copies(y, "rot_color_perm6"), twelve[[0, 1, 2, 6, 7, 8]])


def test_copies_of_a_turned_image_are_those_of_the_image_one_place_on():
    x = pictures(2)
    turned = tf.copies(tf.rotate(x, 1), "rotation").view(2, 4, 3, 5, 5)
    assert torch.equal(turned, tf.copies(x, "rotation").view(2, 4, 3, 5, 5).roll(-1, 1))
    for copy in tf.copies(x[:1], "color_perm"):
        assert torch.equal(copy.sum(0), x[0].sum(0)) or torch.allclose(copy.sum(0), x[0].sum(0))
        assert torch.equal(copy.sort(0).values, x[0].sort(0).values)


def test_any_dtype_any_channels_memory_format_and_gradient():
    x = torch.randint(0, 256, (2, 7, 4, 4), dtype=torch.uint8)
    assert tf.copies(x, "rotation").dtype == torch.uint8
    last = pictures(4, side=8).contiguous(memory_format=torch.channels_last)
    found = tf.copies(last, "rot_color_perm6")
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, tf.copies(last.contiguous(), "rot_color_perm6"))
    y = pictures(2).requires_grad_()
    tf.copies(y, "rotation").sum().backward()
    assert torch.equal(y.grad, torch.full_like(y, 4.0))


def mirror(images):
    return images.flip(-1)


MINE = [lambda images: images, mirror]


def test_own_transformations_as_callables_or_by_name():
    x = pictures(2)
    expected = torch.stack([x, x.flip(-1)], 1).flatten(0, 1)
    assert torch.equal(tf.copies(x, MINE), expected)
    assert torch.equal(tf.copies(x, f"{__name__}:MINE"), expected)
    for wrong in ("turns", "nowhere:MINE", f"{__name__}:YOURS", f"{__name__}:SIZES", []):
        with pytest.raises(UserError, match="transform"):
            tf.transformations(wrong)


def test_what_images_do_not_admit_is_refused_in_a_line():
    with pytest.raises(UserError, match="square"):
        tf.copies(torch.rand(1, 3, 4, 6), "rotation")
    assert tf.copies(torch.rand(1, 3, 4, 6), "rotation2").shape == (2, 3, 4, 6)
    with pytest.raises(UserError, match="3 channels"):
        tf.copies(torch.rand(1, 4, 4, 4), "color_perm3")
    with pytest.raises(UserError, match="keep their shape"):
        tf.copies(torch.rand(1, 3, 4, 4), [lambda x: x, lambda x: x[..., :2]])
    with pytest.raises(UserError, match="colour order"):
        tf.permute_colours(torch.rand(1, 3, 4, 4), "RRB")


def test_random_shift_moves_each_image_by_its_own_offset_and_fills_the_border():
    torch.manual_seed(0)
    x = pictures(64, side=6) + 1
    fill = torch.tensor([-1.0, -2.0, -3.0])
    found = tf.random_shift(x, 2, fill)
    seen = set()
    for before, after in zip(x, found, strict=True):
        padded = fill.view(3, 1, 1).expand(3, 10, 10).clone()
        padded[:, 2:8, 2:8] = before
        places = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(padded[:, top : top + 6, left : left + 6], after)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 15  # of 25, among 64 draws
    assert {top for top, _ in seen} == {left for _, left in seen} == set(range(5))
    assert tf.random_shift(x, 0) is x


def test_cutout_hides_a_square_that_may_hang_over_the_edge():
    torch.manual_seed(0)
    x = torch.ones(200, 2, 9, 9)
    found = tf.cutout(x, 4)
    hidden = (found == 0).float()
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    rows, columns = hidden[:, 0].amax(2).sum(1), hidden[:, 0].amax(1).sum(1)
    assert torch.equal(hidden[:, 0].sum((1, 2)), rows * columns)
    assert rows.max() == columns.max() == 4
    assert rows.min() == 2  # cut off by the edge


def test_cutmix_keeps_the_share_it_names_and_takes_the_rest_from_the_partner():
    torch.manual_seed(1)
    x = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 2, 16, 16).clone()
    shares = []
    for _ in range(20):
        mixed, partner, kept = tf.cutmix(x, 1.0)
        shares.append(float(kept))
        assert sorted(partner.tolist()) == list(range(8))
        own = mixed == x
        taken = mixed == x[partner]
        assert bool((own | taken).all())
        moved = partner != torch.arange(8)
        share = own.float().mean((1, 2, 3))[moved]
        torch.testing.assert_close(share, torch.full_like(share, float(kept)), atol=1e-6, rtol=0)
    assert min(shares) < 0.4
    assert max(shares) > 0.8


def test_ten_crops_are_five_places_and_their_mirrors_at_full_size():
    x = pictures(2, side=8)
    found = tf.ten_crop(x, 0.75).view(2, 10, 3, 8, 8)
    resize = torch.nn.functional.interpolate
    for k, (top, left) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]):
        part = x[:, :, top : top + 6, left : left + 6]
        torch.testing.assert_close(found[:, k], resize(part, (8, 8), mode="bilinear"))
        torch.testing.assert_close(found[:, 5 + k], resize(part.flip(-1), (8, 8), mode="bilinear"))
    assert torch.equal(tf.ten_crop(x, 1.0).view(2, 10, 3, 8, 8)[:, 7], x.flip(-1))


def test_misuse_of_the_random_operations_is_refused():
    x = pictures()
    for call in (
        lambda: tf.random_shift(x, -1),
        lambda: tf.cutout(x, 0),
        lambda: tf.cutmix(x, 0.0),
        lambda: tf.cutmix(x, math.nan),
        lambda: tf.ten_crop(x, 1.5),
    ):
        with pytest.raises(UserError):
            call()


def test_the_module_is_reached_through_the_room():
    assert views.transformations.copies is tf.copies

"""Networks of clips: the sheet's parameter counts, shapes, inflation, and that a spec builds the same again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from selftaught import networks
from selftaught.errors import UserError
from selftaught.networks.video_heads import PRPClassifier, PRPDecoder, VCOPHead

SMALL = ["r3d-nano", "cnn-small-video", "shufflenet-3d", "squeezenet-3d", "mobilenet-3d", "r2plus1d-10", "swin3d-t"]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return networks.video_network(name)


def test_r3d_has_the_sheets_parameters_strides_and_kernels() -> None:
    net = meta("r3d-50")
    assert net.dim == 2048
    assert count(net) == pytest.approx(31.7e6, rel=2e-3)
    kernels = {m.kernel_size for m in net.stages["res3"].modules() if isinstance(m, nn.Conv3d)}
    assert kernels == {(1, 1, 1), (1, 3, 3)}
    assert [net.stages[f"res{k}"][0].conv1.kernel_size[0] for k in (2, 3, 4, 5)] == [1, 1, 3, 3]
    assert net.maps(torch.zeros(1, 3, 16, 224, 224, device="meta")).shape == (1, 2048, 8, 7, 7)
    stem = net.stages["stem"](torch.zeros(1, 3, 16, 224, 224, device="meta"))
    assert stem.shape == (1, 64, 8, 56, 56)
    assert [len(meta("r3d-152").stages[f"res{k}"]) for k in (2, 3, 4, 5)] == [3, 8, 36, 3]
    assert meta("r3d-50-2x").dim == 4096
    assert count(meta("r3d-101")) == pytest.approx(59.6e6, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet3d-18", 33.166), ("r2plus1d-18", 31.300), ("resnet3d-10", 14.36), ("swin3d-t", 27.85), ("c3d", 27.66),
        ("shufflenet-3d", 3.606), ("squeezenet-3d", 1.835), ("mobilenet-3d", 3.298),
    ],
)  # fmt: skip
def test_the_benchmarks_networks_have_their_size(name: str, millions: float) -> None:
    with torch.device("meta"):
        assert count(networks.video_cnn(name)) == pytest.approx(millions * 1e6, rel=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_any_size_any_channels_layers_and_a_spec_that_builds_it_again(name: str) -> None:
    torch.manual_seed(0)
    net = networks.video_network(name, channels=2).eval()
    x = torch.randn(2, 2, 8, 32, 48)
    with torch.no_grad():
        out, maps, layers = net(x), net.maps(x), net.layers(x)
        assert out.shape == (2, net.dim)
        assert torch.allclose(out, maps.mean((2, 3, 4)), atol=1e-6)
        assert list(layers) == list(net.stages)
        assert torch.allclose(list(layers.values())[-1], out, atol=1e-6)
        again = networks.build(net.spec)
        again.load_state_dict(net.state_dict())
        assert torch.equal(again.eval()(x), out)


def test_video_swin_is_torchvisions() -> None:
    from torchvision.models.video import swin3d_t

    torch.manual_seed(0)
    theirs = swin3d_t().eval()
    ours = networks.video_cnn("swin3d-t").eval()
    assert count(ours) == count(theirs) - count(theirs.head)
    weights = [v for k, v in theirs.state_dict().items() if not k.startswith("head")]
    own = ours.state_dict()
    ordered = dict(zip(own, _matched(own, theirs.state_dict()), strict=True))
    assert len(weights) == len(ordered)
    ours.load_state_dict(ordered)
    x = torch.randn(1, 3, 4, 32, 32)
    theirs.head = nn.Identity()
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def _matched(own: dict, theirs: dict) -> list:
    """torchvision's weights in the order of ours: ours move the merging of patches into the stage after it."""
    names = {"embed.patch_embed": "patch_embed", "norm.part": "norm"}
    found = []
    for name in own:
        rest = name.removeprefix("stages.")
        for ours, other in names.items():
            if rest.startswith(ours):
                found.append(theirs[other + rest.removeprefix(ours)])
        if rest.startswith("stage"):
            stage, _, place, tail = rest.split(".", 3)
            k = 2 * (int(stage[5:]) - 1)
            merged = k > 0 and place == "0"
            found.append(theirs[f"features.{k - 1 if merged else k}.{tail}"])
    return found


def test_an_inflated_picture_network_sees_a_still_clip_as_the_picture() -> None:
    import timm

    torch.manual_seed(0)
    flat = timm.create_model("resnet50", num_classes=0, pretrained=False)
    for m in flat.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.0)
    net = networks.inflate(flat.state_dict(), networks.r3d("r3d-50"))
    kernel = net.stages["res4"][0].conv1.weight
    assert torch.allclose(kernel.sum(2), flat.layer3[0].conv1.weight[:, :], atol=1e-6)
    assert torch.allclose(net.stages["stem"].conv.weight.sum(2), flat.conv1.weight, atol=1e-6)
    with pytest.raises(UserError, match="same blocks"):
        networks.inflate(flat.state_dict(), networks.r3d("r3d-26"))


def test_the_order_head_is_its_formula() -> None:
    torch.manual_seed(0)
    head = VCOPHead(5, clips=3, hidden=4).eval()
    f = torch.randn(2, 3, 5)
    h = [head.pair(torch.cat([f[:, i], f[:, j]], 1)).relu() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert torch.allclose(head(f), head.out(torch.cat(h, 1)))
    assert head(f).shape == (2, 6)
    assert VCOPHead(512, 3).pair.weight.shape == (512, 1024)
    assert VCOPHead(8, 2)(torch.randn(1, 2, 8)).shape == (1, 2)
    with pytest.raises(UserError, match="clips=1"):
        VCOPHead(5, clips=1)


def test_the_completion_has_twice_the_frames() -> None:
    maps = torch.randn(2, 6, 1, 2, 2)
    assert PRPDecoder(6, 3, width=16)(maps, (16, 32, 32)).shape == (2, 3, 16, 32, 32)
    assert PRPDecoder(6, 1, width=16)(maps, (8, 20, 24)).shape == (2, 1, 8, 20, 24)
    assert PRPClassifier(6, 3, width=8)(maps).shape == (2, 3)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match="no such encoder of clips; choose r3d-nano"):
        networks.video_network("resnet18")


@pytest.mark.parametrize(
    ("name", "options"), [("vit-nano-video", {"frames": 4, "image_size": 32}), ("resnet3d-10", {})]
)
def test_an_exported_encoder_takes_batches_of_any_size(name: str, options: dict[str, int]) -> None:
    """A number of samples taken by ``len`` would be written into the graph."""
    encoder = networks.video_network(name, **options).eval()
    free = {"x": {0: torch.export.Dim("batch", min=1, max=64)}}
    program = torch.export.export(encoder, (torch.rand(2, 3, 4, 32, 32),), dynamic_shapes=free, strict=False)
    x = torch.rand(3, 3, 4, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(x), encoder(x), atol=1e-5, rtol=1e-4)

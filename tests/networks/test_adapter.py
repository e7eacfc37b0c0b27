"""ScatSimCLR's encoder and pretext heads."""

from __future__ import annotations

import json

import pytest
import torch

from selftaught import networks
from selftaught.errors import UserError
from selftaught.networks.adapter import ADAPTERS


@pytest.mark.parametrize(("blocks", "millions"), [(8, 6.11), (12, 9.28), (16, 10.46), (30, 15.50)])
def test_parameters_as_published(blocks: int, millions: float) -> None:
    """Encoder and projection head at J = 2, L = 16 for RGB; the count includes the BatchNorm that is never used."""
    encoder = networks.scattering_encoder(f"scatsimclr-{blocks}", scat_bn=True)
    head = networks.mlp([encoder.dim, 2048, 128], norm="none")
    count = sum(p.numel() for module in (encoder, head) for p in module.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.006)
    assert encoder.dim == 2048
    assert len(encoder.model.blocks) == blocks


@pytest.mark.parametrize("options", [{}, {"scat_bn": True, "max_order": 1}, {"scales": 3, "angles": 3}])
def test_any_channels_sizes_and_a_single_image(options: dict) -> None:
    for channels, side in ((1, 32), (4, 48)):
        encoder = networks.scattering_encoder("scatsimclr-2", channels=channels, **{"angles": 4} | options).eval()
        x = torch.rand(1, channels, side, side)
        assert encoder(x).shape == (1, 1024)
        maps = encoder.maps(x)
        assert maps.shape == (1, 64, side // 2 ** options.get("scales", 2), side // 2 ** options.get("scales", 2))
        pooled = torch.nn.functional.adaptive_avg_pool2d(maps, 4).flatten(1)
        torch.testing.assert_close(encoder(x), pooled)


def test_the_spec_is_json_and_makes_an_equal_network() -> None:
    encoder = networks.scattering_encoder("scatsimclr-2", channels=3, image_size=32, angles=4, colour="ycbcr").eval()
    spec = json.loads(json.dumps(encoder.spec))
    again = networks.scattering_encoder(spec["name"], channels=3, image_size=32, **spec["kwargs"]).eval()
    again.load_state_dict(encoder.state_dict())
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(x), encoder(x))
    assert spec["dim"] == encoder.dim
    assert not any("scattering" in name or "colours" in name for name in encoder.state_dict())


def test_a_block_is_two_convolutions_beside_the_input() -> None:
    block = networks.adapter.ResidualBlock(3, 5).eval()
    x = torch.randn(2, 3, 6, 6)
    conv1, bn1, _, conv2, bn2 = block.branch
    inner = bn2(conv2(torch.relu(bn1(conv1(x)))))
    torch.testing.assert_close(block(x), torch.relu(inner + block.shortcut(x)))
    same = networks.adapter.ResidualBlock(3, 3).eval()
    torch.nn.init.zeros_(same.branch[4].weight)
    assert torch.equal(same(x), torch.relu(x))


def test_luma_and_colour_differences() -> None:
    encoder = networks.scattering_encoder("scatsimclr-2", angles=2, colour="ycbcr")
    rgb = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    found = rgb @ encoder.model.colours.T
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.114, 0.5, -0.0813], [0.299, -0.1687, 0.5]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    flat = torch.full((1, 3, 16, 16), 0.7)
    coefficients = encoder.model.scatter(flat)
    each = encoder.model.scattering.coefficients
    assert coefficients.shape == (1, 3 * each, 4, 4)
    assert coefficients[:, 0].mean() == pytest.approx(0.7, abs=1e-4)
    assert coefficients[:, 1:].abs().max() < 1e-5  # grey has no colour: channel after channel, K each


def test_pretext_heads() -> None:
    torch.manual_seed(0)
    rotation = networks.rotation_head(20).eval()
    assert [m.out_features for m in rotation if isinstance(m, torch.nn.Linear)] == [512, 128, 4]
    assert sum(isinstance(m, torch.nn.Dropout) for m in rotation) == 2
    jigsaw = networks.JigsawHead(20, 35).eval()
    h = torch.randn(2 * 9, 20)
    answer = jigsaw(h)
    assert answer.shape == (2, 35)
    torch.testing.assert_close(jigsaw(h[:9]), answer[:1])
    h[9:] = 0
    torch.testing.assert_close(jigsaw(h)[:1], answer[:1])
    shapes = [tuple(m.weight.shape) for m in jigsaw.modules() if isinstance(m, torch.nn.Linear)]
    assert shapes == [(512, 20), (4096, 4608), (35, 4096)]


@pytest.mark.slow
def test_it_exports_to_onnx(tmp_path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    encoder = networks.scattering_encoder("scatsimclr-2", channels=1, image_size=16, angles=2).eval()
    x = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        expected = encoder(x)
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    path = tmp_path / "encoder.onnx"
    torch.onnx.export(encoder, (x[:2],), str(path), dynamic_shapes={"x": {0: batch}}, dynamo=True, verbose=False)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


def test_wrong_options_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="scatsimclr-30"):
        networks.scattering_encoder("scatsimclr-9")
    with pytest.raises(UserError, match="3 channels"):
        networks.scattering_encoder("scatsimclr-2", channels=4, colour="ycbcr")
    with pytest.raises(UserError, match="multiple of 8"):
        networks.scattering_encoder("scatsimclr-2", image_size=28, scales=3)
    with pytest.raises(UserError, match="at least one channel"):
        networks.scattering_encoder("scatsimclr-2", channels=0)
    assert next(iter(ADAPTERS)) == "scatsimclr-2"

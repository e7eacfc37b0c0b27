"""The autoencoder of embeddings: its shape, its code, and that it tells the samples it learnt from others."""

from __future__ import annotations

import pytest
import torch

from selftaught.errors import UserError
from selftaught.networks.encoders import build, encoder
from selftaught.networks.vae import EmbeddingVAE
from selftaught.objectives.laf import laf_vae


def test_the_widths_are_the_papers() -> None:
    vae = EmbeddingVAE(256, 8)
    shapes = [tuple(p.shape) for name, p in vae.named_parameters() if name.endswith("weight")]
    assert shapes == [(128, 256), (32, 128), (8, 32), (8, 32), (32, 8), (128, 32), (256, 128)]
    coded = vae(torch.randn(5, 256))
    assert coded.reconstruction.shape == (5, 256)
    assert coded.z.shape == coded.mean.shape == coded.log_variance.shape == (5, 8)


def test_equals_its_formula_with_given_noise() -> None:
    vae = EmbeddingVAE(10, 3, hidden=(7, 5)).double()
    e, noise = torch.randn(4, 10).double(), torch.randn(4, 3).double()
    w = dict(vae.named_parameters())

    def layer(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = layer("encoder.2", layer("encoder.0", e).relu()).relu()
    z = layer("mean", x) + torch.exp(0.5 * layer("log_variance", x)) * noise
    out = layer("decoder.4", layer("decoder.2", layer("decoder.0", z).relu()).relu())
    assert torch.allclose(vae(e, noise).z, z)
    assert torch.allclose(vae(e, noise).reconstruction, out.sigmoid())
    linear = EmbeddingVAE(10, 3, hidden=(7, 5), output="linear").double()
    linear.load_state_dict(vae.state_dict())
    assert torch.allclose(linear(e, noise).reconstruction, out)


def test_the_code_is_drawn_in_evaluation_mode_too_and_follows_the_seed() -> None:
    vae, e = EmbeddingVAE(6, 2).eval(), torch.randn(3, 6)
    torch.manual_seed(1)
    a = vae(e).z
    b = vae(e).z
    torch.manual_seed(1)
    assert torch.equal(vae(e).z, a)
    assert not torch.equal(a, b)
    coded = vae(e, torch.zeros(3, 2))
    assert torch.equal(coded.z, coded.mean)


def test_reconstructs_what_it_learnt_and_nothing_else() -> None:
    torch.manual_seed(0)
    basis = torch.randn(2, 3, 20)
    ours, others = (0.5 + 0.1 * torch.randn(256, 3) @ side for side in basis)
    vae = EmbeddingVAE(20, 4)
    optimiser = torch.optim.Adam(vae.parameters(), 3e-3)
    for _ in range(300):
        coded = vae(ours)
        loss = laf_vae(ours, coded.reconstruction, coded.mean, coded.log_variance)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def error(e: torch.Tensor) -> float:
        return float((vae(e).reconstruction - e).detach().square().sum(1).mean())

    assert error(ours) < 0.5 * error(others)


def test_bad_widths_and_shapes_are_refused() -> None:
    for call in (
        lambda: EmbeddingVAE(0),
        lambda: EmbeddingVAE(4, output="tanh"),  # type: ignore[arg-type]
        lambda: EmbeddingVAE(4, 2)(torch.randn(3, 5)),
        lambda: EmbeddingVAE(4, 2)(torch.randn(3, 4), torch.randn(1, 2)),
    ):
        with pytest.raises(UserError):
            call()


def test_the_papers_small_network_has_its_sizes_and_loads_with_torch_alone() -> None:
    made = encoder("cnn-small", channels=1, image_size=28)
    shapes = [tuple(p.shape) for name, p in made.named_parameters() if name.endswith("weight")]
    assert shapes == [(16, 1, 5, 5), (32, 16, 5, 5), (256, 1568)]
    x = torch.rand(3, 1, 28, 28)
    assert made(x).shape == (3, made.dim) == (3, 256)
    assert made.maps(x).shape == (3, 32, 7, 7)
    scope: dict[str, torch.nn.Module] = {}
    exec(made.spec["timm_code"], {}, scope)
    scope["model"].load_state_dict(made.model.state_dict())
    assert torch.equal(scope["model"](x), made(x))
    again = build(made.spec)
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(x), made(x))
    with pytest.raises(UserError, match="too small"):
        encoder("cnn-small", channels=1, image_size=3)

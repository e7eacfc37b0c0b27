"""Adapters in a frozen ViT: they begin as the network, count as the formula says, merge, and leave the base alone."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from selftaught import networks
from selftaught.errors import UserError
from selftaught.networks import Adapted, UniAdapter, adapter_parameters, weights_hash

KINDS = ("uni", "lora", "bitfit", "vpt", "full")


@pytest.fixture(scope="module")
def base() -> networks.Encoder:
    torch.manual_seed(0)
    found = networks.encoder("vit-nano", channels=3, image_size=32)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
    return found.eval()


def images(n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def stir(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parts.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "vpt"])
@pytest.mark.parametrize("placement", ["sequential", "parallel"])
def test_it_begins_as_the_frozen_network_bit_for_bit(base, kind: str, placement: str) -> None:
    network = Adapted(base, kind, rank=8, placement=placement)
    x = images()
    with torch.no_grad():
        assert torch.equal(network(x), base(x))
        assert torch.equal(network.maps(x), base.maps(x))
        torch.testing.assert_close(network.attention(x), base.attention(x))
        for mine, its in zip(network.tokens(x), base.tokens(x), strict=True):
            assert torch.equal(mine, its)


@pytest.mark.parametrize("kind", KINDS)
def test_only_its_parts_learn_and_the_base_stays(base, kind: str) -> None:
    network, before = Adapted(base, kind, rank=8).train(), weights_hash(base)
    assert not base.training
    trained = [p for p in network.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in network.parts.parameters()}
    optimiser = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
    x, start = images(), base(images())
    for _ in range(2):
        optimiser.zero_grad()
        network.tokens(x)[1].square().mean().backward()
        optimiser.step()
    assert any(p.grad is not None and bool(p.grad.any()) for p in trained)
    assert weights_hash(base) == before
    assert not torch.allclose(network(x), start)
    assert torch.equal(base(x), start)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("lora", {"targets": "qkv"}), ("lora", {}), ("bitfit", {}), ("full", {}), ("uni", {"activation": "none"})],
)
def test_what_is_linear_merges_into_a_plain_network(base, kind: str, options: dict) -> None:
    network = Adapted(base, kind, rank=4, **options)
    stir(network)
    plain = network.merged()
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(plain(x), network(x), atol=2e-4, rtol=1e-3)
        assert not torch.allclose(plain(x), base(x), atol=1e-2)
    assert "timm_code" in plain.spec
    assert "adapter" not in plain.spec


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["qkv", "all"])
def test_lora_is_that_of_peft(base, targets: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    network = Adapted(base, "lora", rank=4, alpha=6.0, targets=targets)
    stir(network)
    config, tensors = network.peft()
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "adapter_model.safetensors")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base.model), tmp_path, is_trainable=True).eval()
    x = images()
    torch.testing.assert_close(theirs(x), network(x), atol=1e-5, rtol=1e-4)
    theirs(x).square().mean().backward()
    network(x).square().mean().backward()
    wanted = {name.replace(".default", ""): p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    assert wanted.keys() == tensors.keys(), "peft would train other tensors than ours"
    for layer, pair in network.parts.items():
        name = "base_model.model." + layer.removesuffix("-weight").replace("-", ".")
        for side, mine in zip("AB", pair, strict=True):
            torch.testing.assert_close(mine.grad, wanted[f"{name}.lora_{side}.weight"], atol=1e-5, rtol=1e-3)
    assert len(network.parts) == {"qkv": 1, "all": 4}[targets] * len(base.model.blocks)
    merged, plain = theirs.merge_and_unload().state_dict(), network.merged().model.state_dict()
    assert merged.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(value, merged[name], atol=1e-6, rtol=1e-5)
    with pytest.raises(UserError, match="peft's format is for lora"):
        Adapted(base, "bitfit").peft()


def test_what_is_not_linear_does_not_merge(base) -> None:
    for kind, options in (("vpt", {}), ("uni", {}), ("uni", {"activation": "none", "placement": "parallel"})):
        with pytest.raises(UserError, match="can't be merged"):
            Adapted(base, kind, rank=4, **options).merged()
    with pytest.raises(UserError, match="has no tokens"):
        Adapted(networks.encoder("cnn-small", channels=3, image_size=32))


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_in_json_builds_it_again(base, kind: str) -> None:
    network = Adapted(base, kind, rank=4, share_down=kind == "uni")
    stir(network)
    again = networks.build(json.loads(json.dumps(network.spec)))
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(images()), network(images()))


def test_the_bottleneck_is_its_formula() -> None:
    adapter = UniAdapter(6, 3, activation="relu", scale=0.5)
    nn.init.normal_(adapter.up.weight)
    nn.init.normal_(adapter.up.bias)
    h = torch.randn(4, 6)
    inner = torch.relu(h @ adapter.down.weight.T + adapter.down.bias)
    torch.testing.assert_close(adapter(h), 0.5 * (inner @ adapter.up.weight.T + adapter.up.bias))
    learned = UniAdapter(6, 3, scale="learned")
    assert learned.scale.shape == ()
    assert learned.scale.requires_grad
    with pytest.raises(UserError, match="rank=0"):
        UniAdapter(6, 0)


def test_the_counts_are_the_papers() -> None:
    with torch.device("meta"):
        vit = networks.encoder("vit_small_patch16_224", channels=3, image_size=224)
    network = Adapted.__new__(Adapted)
    nn.Module.__init__(network)
    parts = Adapted._uni(384, 12, 64, "gelu", 1.0, False)
    count = sum(p.numel() for p in parts.parameters())
    assert count == adapter_parameters(384, 12, 64) == 2 * 12 * (2 * 384 * 64 + 64 + 384)
    assert 1.1e6 < count < 1.3e6
    assert count < 0.07 * sum(p.numel() for p in vit.parameters())
    assert 2.3e6 < adapter_parameters(768, 12, 64) < 2.5e6
    shared = Adapted._uni(384, 12, 64, "gelu", 1.0, True)
    assert sum(p.numel() for p in shared.parameters()) == count - 2 * 11 * (384 * 64 + 64)


def test_prompts_take_part_and_leave_no_trace(base) -> None:
    network = Adapted(base, "vpt", prompts=3)
    x = images()
    whole, patches = network.tokens(x)
    assert patches.shape == base.tokens(x)[1].shape
    assert whole.shape == (2, base.dim)
    assert not torch.allclose(whole, base.tokens(x)[0], atol=1e-4)
    assert sum(p.numel() for p in network.parts.parameters()) == len(base.model.blocks) * 3 * base.dim

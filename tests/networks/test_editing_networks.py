"""What NP-Edit is made of: small flows, LoRA, small judges, a vision-language model as a judge, a pipeline's flow."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from selftaught import networks
from selftaught.errors import UserError

TOKENS = torch.tensor([[1022, 5, 6, 1023, 0], [1022, 7, 1023, 0, 0]])


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_a_flow_reads_time_text_and_reference(kind: str) -> None:
    torch.manual_seed(0)
    net = networks.flow_network(kind, 4, 16, width=16, patch=4 if kind == "dit" else 2)
    x, ref, t = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16), torch.tensor([0.3, 1.0])
    assert torch.equal(net(x, t, TOKENS), torch.zeros_like(x))  # what leaves it starts at zero
    assert torch.equal(net(x, t, TOKENS, ref), net(x, t, TOKENS))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    found = net(x, t, TOKENS, ref)
    assert found.shape == x.shape
    for other in (
        net(x, t / 2, TOKENS, ref),
        net(x, t, TOKENS.flip(0), ref),
        net(x, t, TOKENS, -ref),
        net(x, t, TOKENS),
    ):
        assert (found - other).abs().max() > 1e-3
    with pytest.raises(UserError, match="the flow takes pictures"):
        net(x[:, :, :8], t, TOKENS)
    with pytest.raises(UserError, match="divide"):
        networks.flow_network(kind, 3, 18, patch=4)
    with pytest.raises(UserError, match="unet, dit"):
        networks.flow_network("gan", 3, 16)  # type: ignore[arg-type]


def test_gates_alone_can_copy_the_reference() -> None:
    """v = (x_t - y) / t is the velocity towards y: gates 1/t and -1/t."""
    net = networks.flow_network("unet", 3, 16, width=8)
    x, y, t = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16), torch.tensor([0.5, 0.5])
    net.gates[1].bias.data = torch.tensor([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    torch.testing.assert_close(x - 0.5 * net(x, t, TOKENS, y), y)


def test_lora_begins_as_the_network_and_trains_its_own_factors_alone() -> None:
    torch.manual_seed(0)
    net = networks.flow_network("unet", 3, 16, width=8)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([0.3, 1.0])
    before, own = net(x, t, TOKENS, x), {n: p.clone() for n, p in net.state_dict().items()}
    count = networks.add_lora(net, 2, alpha=4.0)
    torch.testing.assert_close(net(x, t, TOKENS, x), before)
    trained = {n for n, p in net.named_parameters() if p.requires_grad}
    assert all(n.endswith((".a", ".b")) for n in trained)
    assert count == sum(p.numel() for n, p in net.named_parameters() if n in trained)
    layer = net.enter
    layer.parametrizations.weight[0].b.data.fill_(0.5)
    a = layer.parametrizations.weight[0].a
    wanted = own["enter.weight"] + 2 * (0.5 * a.sum(0)).view(1, *own["enter.weight"].shape[1:])
    torch.testing.assert_close(layer.weight, wanted.expand_as(layer.weight))
    with pytest.raises(UserError, match="rank"):
        networks.add_lora(net, 0)


def test_words_are_pooled_without_what_fills_up() -> None:
    pool = networks.WordPool(64, context=8, width=16)
    tokens = torch.tensor([[62, 5, 6, 63, 0, 0], [62, 5, 7, 63, 0, 0]])
    torch.testing.assert_close(pool(tokens), pool(tokens[:, :4]))
    assert (pool(tokens)[0] - pool(tokens)[1]).abs().max() > 0.1
    assert (pool(tokens[:1]) - pool(tokens[:1, [0, 2, 1, 3]])).abs().max() > 1e-4  # order counts
    with pytest.raises(UserError, match="vocabulary"):
        pool(tokens + 10)


@pytest.mark.parametrize("kind", [networks.ConvJudge, networks.PatchJudge])
def test_small_judges_answer_with_gradient(kind: type[nn.Module]) -> None:
    judge = kind(4, 8)
    ref, edit = torch.rand(2, 4, 16, 16), torch.rand(2, 4, 16, 16, requires_grad=True)
    logits = judge(ref, edit, TOKENS)
    assert logits.shape == (2, 2)
    (logits[:, 0] - logits[:, 1]).sum().backward()
    assert edit.grad is not None
    assert edit.grad.abs().min(0).values.max() > 0
    with pytest.raises(UserError, match="two pictures of one shape"):
        judge(ref, edit[:, :, :8], TOKENS)


def test_what_small_judges_learn_from() -> None:
    grey = torch.rand(8, 1, 16, 16).expand(8, 3, 16, 16)
    torch.testing.assert_close(networks.mixed_colours(grey), grey)
    x = torch.rand(8, 3, 16, 16)
    mixed = networks.mixed_colours(x)
    assert ((mixed >= x.amin(1, keepdim=True) - 1e-6) & (mixed <= x.amax(1, keepdim=True) + 1e-6)).all()
    assert (mixed - x).abs().mean() > 0.05
    moved = networks.shifted(x)
    for a, b in zip(x, moved, strict=True):
        near = [a.roll((dy, dx), (1, 2)) for d in range(2, 5) for dy, dx in ((d, 0), (-d, 0), (0, d), (0, -d))]
        assert min((n - b)[:, 5:-5, 5:-5].abs().max() for n in near) < 1e-6


def test_damage_is_grain_blur_tiles_or_a_cast() -> None:
    x = torch.rand(400, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = networks.damaged(x, torch.Generator().manual_seed(1))
    off = found - x
    assert torch.equal(found, networks.damaged(x, torch.Generator().manual_seed(1)))
    cast = off.var((2, 3)).amax(1) < 1e-10
    tiled = (found == found[:, :, :1, :1]).sum((1, 2, 3)) >= 3 * 4 * 4  # 4 to 8 pixels wide, of one colour
    detail = found.diff(dim=3).abs().mean((1, 2, 3)) / x.diff(dim=3).abs().mean((1, 2, 3))
    blurry, grainy = ~tiled & (detail < 0.4), ~tiled & ~cast & (detail > 1.01)
    kinds = torch.stack([grainy, blurry, tiled, cast & ~tiled])
    assert (kinds.sum(0) == 1).all()
    assert (kinds.sum(1) > 60).all()
    sizes = off[cast].mean((2, 3)).abs().amax(1)
    assert ((sizes > 0.0999) & (sizes < 0.3001)).all()
    noise = off[grainy].std((1, 2, 3))
    assert ((noise > 0.09) & (noise < 0.43)).all()
    torch.testing.assert_close(found[tiled | blurry].mean((2, 3)), x[tiled | blurry].mean((2, 3)), atol=0.06, rtol=0)
    for shape in ((2, 1, 1, 3), (2, 5, 7, 9)):
        assert networks.damaged(torch.rand(shape)).shape == shape


# ---- pretrained models -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA with random weights and a tokeniser of whole words, saved as such models are."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<pad>", "<unk>", "<image>", "USER:", "ASSISTANT:", "Yes", "No", "Is", "image", "2", "blue", "red", "?"]
    words += ["Answer", "with", "yes", "or", "no."]
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")
    raw = tokenizers.Tokenizer(model)
    raw.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    raw.add_special_tokens(["<pad>", "<unk>", "<image>"])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>")
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, do_center_crop=True
    )
    processor = transformers.LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1,
    )  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vision, image_size=28, patch_size=14),
        text_config=transformers.LlamaConfig(**text, num_key_value_heads=2, vocab_size=len(words), pad_token_id=0),
        image_token_index=2,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llava")
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_vision_language_model_answers_with_gradient(model_folder: Path) -> None:
    judge = networks.VisionLanguageJudge(str(model_folder)).eval().requires_grad_(False)
    assert (judge.yes, judge.no) == (5, 6)
    ref, edit = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32, requires_grad=True)
    asked = ["Is image 2 blue ?", "Is image 2 red ? ?"]
    logits = judge(ref, edit, asked)
    assert logits.shape == (2, 2)
    logits[:, 0].sum().backward()
    assert edit.grad is not None
    assert edit.grad.abs().amax((1, 2, 3)).min() > 0
    with torch.no_grad():
        one = judge(ref[1:], edit[1:], asked[1:])  # the same without the padding that the longer question brings
        torch.testing.assert_close(one, logits[1:].detach(), atol=1e-3, rtol=1e-3)
        shown = torch.stack([ref, edit.detach()], 1).flatten(0, 1)
        template = judge._prompted(shown, asked)["pixel_values"]
        assert (judge._pixels(shown, template) - template).abs().mean() < 0.02  # rounding to 8 bits
        whole = judge.vocabulary(ref, edit.detach(), asked)
        torch.testing.assert_close(whole[:, [5, 6]], logits.detach(), atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="crops, pads or scales"):
        judge(torch.rand(1, 3, 20, 60), torch.rand(1, 3, 20, 60), asked[:1])
    with pytest.raises(UserError, match="two RGB pictures"):
        judge(ref[:, :1], edit[:, :1], asked)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match=r'judge=hf:.*take judge="small"'):
        networks.VisionLanguageJudge(str(tmp_path))


def test_a_pipeline_s_flow() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=16, out_channels=4,
        pos_embed_max_size=24,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, scaling_factor=1.5, shift_factor=0.06,
    )  # fmt: skip
    asked: list[str] = []

    def prompt(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        asked.extend(texts)
        rows = torch.stack([torch.full((3, 16), float(len(t))) for t in texts])
        return rows, rows[:, 0]

    flow = networks.PipelineFlow(transformer, vae, prompt, 16)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    latents = flow.encode(images)
    assert latents.shape[1:] == flow.latent == (4, 8, 8)
    torch.testing.assert_close(latents, (vae.encode(images).latent_dist.mode() - 0.06) * 1.5)
    assert flow.decode(latents).shape == images.shape
    t = torch.tensor([0.3, 1.0])
    bare, with_ref = flow(latents, t, ["red", "blue"]), flow(latents, t, ["red", "blue"], -latents)
    assert bare.shape == with_ref.shape == latents.shape
    assert (bare - with_ref).abs().max() > 1e-4
    flow(latents, t, ["blue", "red"])
    assert asked == ["red", "blue"]  # texts are embedded once
    other = flow.another()
    torch.testing.assert_close(other(latents, t, ["red", "blue"]), bare)
    assert not any("vae" in name for name in flow.state_dict())
    assert next(other.parameters()) is not next(flow.parameters())
    with pytest.raises(UserError, match="image_size=18"):
        networks.PipelineFlow(transformer, vae, prompt, 18)

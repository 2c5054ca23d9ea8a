"""Weights sources: third-party blocks compute the same here, and a message reports the rest."""

from pathlib import Path
from typing import get_args

import ssl_pipeline.torchvision_compat  # noqa: F401  (before timm)

import pytest
import torch
from monai.networks.nets import MaskedAutoEncoderViT, ViTAutoEnc
from monai.networks.nets import ViT as MonaiViT
from safetensors.torch import save_file
from timm.models import create_model
from timm.models.vision_transformer import VisionTransformer
from transformers import Dinov2Config, Dinov2Model

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.bundle import save_bundle
from ssl_pipeline.init_from import (
    BundleWeights,
    HuggingFaceWeights,
    InitFrom,
    MonaiWeights,
    RegistryWeights,
    TimmWeights,
)
from ssl_pipeline.init_from.transfer import load_pretrained
from ssl_pipeline.init_from.weights_source import WeightsSource
from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.registry.entry import EntryContent
from ssl_pipeline.registry.registry import Registry

TINY = {"embed_dim": 128, "depth": 6, "num_heads": 4}
SIZES = {"hidden_size": 128, "mlp_dim": 512, "num_layers": 6, "num_heads": 4}
IMAGE = {"in_channels": 1, "img_size": (32, 32, 32), "patch_size": (16, 16, 16)}


def randomize(network):
    """Random values everywhere: fresh norms, biases and scales would hide a mistake."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network.eval()


def new_encoder(**settings):
    torch.manual_seed(0)
    return ViT(**settings).build().eval()


def load_into(source, encoder):
    return load_pretrained(encoder, source.read(), source.description)


def save_weights(folder, network, name="w.safetensors"):
    path = folder / name
    if path.suffix == ".safetensors":
        save_file({n: t.contiguous() for n, t in network.state_dict().items()}, path)
    else:
        torch.save(network.state_dict(), path)
    return str(path)


def save_encoder_bundle(folder, encoder, model):
    save_bundle(folder, encoder, model, Preprocess(), (16, 16, 16), {"study": "x"})
    return str(folder)


def encode_blocks(encoder, tokens):
    """Blocks and last norm alone."""
    for block in encoder.blocks:
        tokens = block(tokens)
    return encoder.norm(tokens)


def encode_foreign_blocks(network, tokens):
    for block in network.blocks:
        tokens = block(tokens)
    return network.norm(tokens) if hasattr(network, "norm") else tokens


def assert_same_function(encoder, network):
    """MONAI's norms add 1e-5 to the variance and our blocks' 1e-6, which is all that differs."""
    tokens = torch.randn(2, 20, 128)
    with torch.no_grad():
        assert torch.allclose(
            encode_blocks(encoder, tokens), encode_foreign_blocks(network, tokens), atol=1e-4
        )
        for norm in (m for m in encoder.modules() if isinstance(m, torch.nn.LayerNorm)):
            norm.eps = 1e-5
        assert torch.allclose(
            encode_blocks(encoder, tokens), encode_foreign_blocks(network, tokens), atol=1e-5
        )


def weights_source(name, folder):
    """Weights for an encoder of the tiny preset, of every source there is."""
    if name == "bundle":
        return BundleWeights(
            path=save_encoder_bundle(folder / "encoder", randomize(new_encoder()), ViT())
        )
    if name == "registry":
        bundle = Path(save_encoder_bundle(folder / "encoder", randomize(new_encoder()), ViT()))
        entry = Registry(folder / "registry").add(EntryContent(name="chest"), bundle)
        return RegistryWeights(path=str(folder / "registry"), of=entry)
    if name == "huggingface":
        size = Dinov2Config(hidden_size=128, num_hidden_layers=6, num_attention_heads=4)
        network = randomize(Dinov2Model(size))
        for name, scale in network.named_parameters():
            if "layer_scale" in name:  # else the blocks here hold the products
                torch.nn.init.ones_(scale)
        network.save_pretrained(folder)
        return HuggingFaceWeights(path=str(folder / "model.safetensors"))
    network = VisionTransformer(**TINY) if name == "timm" else MonaiViT(**IMAGE, **SIZES)
    kind = {"timm": TimmWeights, "monai": MonaiWeights}[name]
    return kind(path=save_weights(folder, randomize(network)))


WEIGHTS_SOURCES = get_args(get_args(InitFrom)[0])


@pytest.mark.parametrize("kind", WEIGHTS_SOURCES, ids=lambda kind: kind.__name__)
def test_every_source_keeps_the_contract(kind, tmp_path):
    name = kind.model_fields["name"].default
    source = weights_source(name, tmp_path)
    assert isinstance(source, WeightsSource) and source.weights_path in source.files
    found = source.read()
    own = new_encoder(patch_voxels=(4, 8, 8))
    before = {n: t.clone() for n, t in own.state_dict().items()}
    message = load_pretrained(own, found, source.description)
    for block in (n for n in before if n.startswith("blocks.") and n in found.tensors):
        assert torch.equal(own.state_dict()[block], found.tensors[block])
    assert not torch.equal(before["embed.weight"], own.embed.weight)
    assert message.startswith("init_from: ") and message.endswith(".") and "\n" not in message
    assert source.sha256[:12] in message and str(tmp_path) not in message
    crop = torch.randn(1, 1, 16, 16, 16)
    assert torch.isfinite(own(crop, torch.ones(1, 3))).all()
    with pytest.raises(UserError, match=r"6 blocks of width 128.*12 blocks of width 384"):
        load_pretrained(new_encoder(preset="S"), found, source.description)
    with pytest.raises(UserError, match=r"no weights are|which is gone"):
        _ = source.model_copy(update={"path": str(tmp_path / "nowhere")}).sha256


def test_timms_small_vit_computes_the_same(tmp_path):
    network = randomize(create_model("vit_small_patch16_224", pretrained=False))
    encoder = new_encoder(preset="S")
    message = load_into(TimmWeights(path=save_weights(tmp_path, network)), encoder)
    tokens = torch.randn(2, 20, 384)
    with torch.no_grad():
        assert torch.allclose(
            encode_blocks(encoder, tokens), encode_foreign_blocks(network, tokens), atol=1e-5
        )
    assert "148 of 152 tensors loaded" in message
    assert "patch embedding inflated from 16x16 to 8x8x8" in message
    assert "not used: cls_token, head, pos_embed;" in message
    assert "their training subjects are not known" in message


@pytest.mark.parametrize("suffix", ["pt", "pth"])
def test_a_grey_image_gets_the_token_that_timm_gives_it(tmp_path, suffix):
    network = randomize(VisionTransformer(**TINY))
    encoder = new_encoder(patch_voxels=(4, 16, 16))
    load_into(TimmWeights(path=save_weights(tmp_path, network, f"w.{suffix}")), encoder)
    image = torch.randn(16, 16)
    crop = image.expand(4, 16, 16).reshape(1, -1)  # the same in every slice
    with torch.no_grad():
        there = network.patch_embed.proj(image.expand(1, 3, 16, 16)).flatten()
        assert torch.allclose(encoder.embed(crop)[0], there, atol=1e-5)


@pytest.mark.parametrize("ours_has", [None, 1e-5], ids=["none here", "one here"])
@pytest.mark.parametrize("theirs_has", [None, 1e-5], ids=["none there", "one there"])
def test_layer_scale_changes_nothing_of_what_blocks_compute(tmp_path, ours_has, theirs_has):
    network = randomize(VisionTransformer(**TINY, init_values=theirs_has))
    encoder = new_encoder(layer_scale=ours_has)
    message = load_into(TimmWeights(path=save_weights(tmp_path, network)), encoder)
    tokens = torch.randn(2, 20, 128)
    with torch.no_grad():
        assert torch.allclose(
            encode_blocks(encoder, tokens), encode_foreign_blocks(network, tokens), atol=1e-5
        )
    assert ("multiplied into" in message) == bool(theirs_has and not ours_has)
    assert ("layer scale initialized to 1" in message) == bool(ours_has and not theirs_has)


def test_registers_are_taken_where_their_number_agrees(tmp_path):
    network = randomize(VisionTransformer(**TINY, reg_tokens=2))
    path = save_weights(tmp_path, network)
    encoder = new_encoder(registers=2)
    load_into(TimmWeights(path=path), encoder)
    assert torch.equal(encoder.registers, network.reg_token.flatten())
    message = load_into(TimmWeights(path=path), new_encoder(registers=3))
    assert "initialized randomly: registers" in message


@pytest.mark.parametrize("bias", [True, False], ids=["qkv bias", "none"])
@pytest.mark.parametrize("prefix", ["", "module.", "vit."])
def test_monais_vit_computes_the_same(tmp_path, bias, prefix):
    network = randomize(MonaiViT(**IMAGE, **SIZES, qkv_bias=bias))
    path = tmp_path / "w.pt"
    wrapped = {f"{prefix}{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, path)
    encoder = new_encoder(patch_voxels=(16, 16, 16))
    message = load_into(MonaiWeights(path=str(path)), encoder)
    assert_same_function(encoder, network)
    assert "patch embedding of 16x16x16 unchanged" in message
    assert ("attention biases initialized to 0" in message) == (not bias)


@pytest.mark.parametrize("kind", ["conv", "perceptron"])
def test_monais_patch_embedding_sees_scans_upright(tmp_path, kind):
    network = randomize(MonaiViT(**IMAGE, **SIZES, proj_type=kind, pos_embed_type="none"))
    encoder = new_encoder(patch_voxels=(16, 16, 16))
    load_into(MonaiWeights(path=save_weights(tmp_path, network)), encoder)
    patch = torch.randn(16, 16, 16)  # (x, y, z), as MONAI loads it
    with torch.no_grad():
        padded = torch.zeros(1, 1, 32, 32, 32)
        padded[0, 0, :16, :16, :16] = patch
        embedding = network.patch_embedding
        embedding.position_embeddings.zero_()
        there = embedding(padded)[0, 0]
        here = encoder.embed(patch.permute(2, 1, 0).reshape(1, -1))[0]
    assert torch.allclose(here, there, atol=1e-4)


@pytest.mark.parametrize("network", [ViTAutoEnc, MaskedAutoEncoderViT], ids=lambda n: n.__name__)
def test_the_encoder_of_a_larger_network_of_monai_is_found(tmp_path, network):
    more = {"decoder_hidden_size": 96, "decoder_num_heads": 4}
    more |= {"pos_embed_type": "learnable", "decoder_pos_embed_type": "learnable"}
    built = randomize(
        network(**IMAGE, **SIZES, **(more if network is MaskedAutoEncoderViT else {}))
    )
    encoder = new_encoder()
    message = load_into(MonaiWeights(path=save_weights(tmp_path, built)), encoder)
    assert_same_function(encoder, built)
    assert "patch embedding resized from 16x16x16 to 8x8x8" in message
    assert "patch_embedding.position_embeddings" in message


def test_a_patch_embedding_that_does_not_fit_is_initialized_randomly(tmp_path):
    flat = {"in_channels": 1, "img_size": (32, 32), "patch_size": (16, 16), "spatial_dims": 2}
    network = randomize(MonaiViT(**flat, **SIZES))
    encoder = new_encoder()
    before = encoder.embed.weight.clone()
    message = load_into(MonaiWeights(path=save_weights(tmp_path, network)), encoder)
    assert torch.equal(encoder.embed.weight, before)
    assert "patch embedding of 8x8x8 initialized randomly; " in message
    assert "; initialized randomly: embed" in message


def test_a_bundle_of_the_same_model_is_loaded_completely(tmp_path):
    model = ViT(registers=2, layer_scale=0.1)
    first = randomize(new_encoder(**model.model_dump()))
    source = BundleWeights(path=save_encoder_bundle(tmp_path / "encoder", first, model))
    encoder = new_encoder(**model.model_dump())
    message = load_into(source, encoder)
    crop, spacing = torch.randn(2, 1, 16, 16, 16), torch.ones(2, 3)
    with torch.no_grad():
        assert torch.equal(encoder(crop, spacing), first(crop, spacing))
    total = len(first.state_dict())
    assert f"{total} of {total} tensors loaded from weights in the format of bundle" in message
    assert "their training subjects are not known" in message  # no list lies beside it
    assert (
        source.read_training_subjects().is_unknown
        and not source.read_training_subjects().is_third_party
    )


def test_a_bundle_lists_its_training_subjects(tmp_path, catalog):
    source = BundleWeights(path=save_encoder_bundle(tmp_path / "encoder", new_encoder(), ViT()))
    entry = catalog.entries[0]
    before = source.files_sha256
    training_subjects.write(tmp_path / "encoder", [entry.id], [entry], "salt")
    assert (
        source.read_training_subjects().voxel_hashes == {entry.voxel_hash}
        and source.files_sha256 != before
    )
    assert "is not known" not in load_into(source, new_encoder())


def test_convolutional_encoders_start_from_their_kind_alone(tmp_path):
    model = ResEnc()
    first, encoder = randomize(model.build()), model.build().eval()
    bundle = BundleWeights(path=save_encoder_bundle(tmp_path / "encoder", first, model))
    with pytest.raises(UserError, match="`model` has no blocks of a vision transformer"):
        load_into(weights_source("timm", tmp_path), encoder)
    with pytest.raises(UserError, match="weights are of no blocks of a vision transformer"):
        load_into(bundle, new_encoder())
    message = load_into(bundle, encoder)
    assert all(torch.equal(t, first.state_dict()[n]) for n, t in encoder.state_dict().items())
    assert (
        "patch embedding" not in message and "not used" not in message and "randomly" not in message
    )


BAD = {
    "another network": (
        lambda path: torch.save(create_model("resnet18").state_dict(), path),
        "one should end with patch_embed.proj.weight, and there are none, such as",
    ),
    "several networks": (
        lambda path: torch.save(
            {
                f"{who}.{name}": tensor
                for who in ("student", "teacher")
                for name, tensor in VisionTransformer(**TINY).state_dict().items()
            },
            path,
        ),
        r"several \(student\., teacher\.\)",
    ),
    "no file of weights": (lambda path: path.write_bytes(b"hello"), "cannot be read as weights"),
    "cut short": (
        lambda path: (
            torch.save({"a": torch.zeros(999)}, path),
            path.write_bytes(path.read_bytes()[:700]),
        ),
        "cannot be read as weights",
    ),
    "code": (
        lambda path: torch.save({"args": UserError("x")}, path),
        r"save the network's state dict",
    ),
    "no tensors": (lambda path: torch.save({"epoch": 3}, path), "holds no tensors by name"),
    "a list": (lambda path: torch.save([1], path), "holds no tensors by name"),
    "not finite": (
        lambda path: torch.save({"a": torch.tensor([torch.nan])}, path),
        "a is not finite",
    ),
    "blocks of another kind": (
        lambda path: torch.save(VisionTransformer(**TINY, qk_norm=True).state_dict(), path),
        r"blocks.0.attn.q_norm.weight differs",
    ),
    "too deep": (
        lambda path: torch.save(VisionTransformer(**(TINY | {"depth": 7})).state_dict(), path),
        "7 blocks of width 128, 512 inside, and the encoder of `model` has 6 blocks",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_unusable_weights_are_reported_in_one_sentence(tmp_path, what):
    write, sentence = BAD[what]
    write(tmp_path / "w.pt")
    encoder = new_encoder()
    before = encoder.embed.weight.clone()
    with pytest.raises(UserError, match=sentence) as raised:
        load_into(TimmWeights(path=str(tmp_path / "w.pt")), encoder)
    assert "\n" not in str(raised.value) and str(raised.value).startswith("init_from")
    assert torch.equal(encoder.embed.weight, before)

"""Weights in the layouts of transformers: the same blocks here, and no tensor unaccounted for."""

import ssl_pipeline.torchvision_compat  # noqa: F401  (before transformers)

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from ssl_pipeline.errors import UserError
from ssl_pipeline.init_from import HuggingFaceWeights
from ssl_pipeline.init_from.transfer import load_pretrained
from ssl_pipeline.models import ViT
from ssl_pipeline.models.vit_config import ViTSize

WIDTH, DEPTH = 96, 3
SIZE = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
IMAGE = {"image_size": 28, "patch_size": 14}
DINO = ViT(size=ViTSize(width=WIDTH, depth=DEPTH, heads=4))
# An MLP that is no multiple of the width, as MedSigLIP's, 1152 and 4304.
MLP = {"intermediate_size": 359}
SIGLIP = ViT(size=ViTSize(width=WIDTH, depth=DEPTH, heads=4, mlp_width=359), activation="gelu_tanh")


def siglip():
    return SiglipVisionModel(SiglipVisionConfig(**SIZE, **MLP, **IMAGE))


def siglip_with_text():
    text = {**SIZE, **MLP, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1}
    return SiglipModel(SiglipConfig(vision_config={**SIZE, **MLP, **IMAGE}, text_config=text))


def dino():
    return Dinov2Model(Dinov2Config(**SIZE, **IMAGE))


def dino_with_classes():
    return Dinov2ForImageClassification(Dinov2Config(**SIZE, **IMAGE))


def dino_with_registers():
    return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZE, **IMAGE))


def transformer(network):
    """The blocks, and the norm behind them, of a network of transformers."""
    own = getattr(network, "dinov2", getattr(network, "vision_model", network))
    blocks = getattr(own.encoder, "layers", None) or own.encoder.layer
    return blocks, getattr(own, "layernorm", None) or own.post_layernorm


def saved(network, folder, model, dtype=torch.float32):
    """An encoder with the weights of a network in a file, the message about it, and the file."""
    torch.manual_seed(1)
    with torch.no_grad():  # fresh norms, biases and scales would hide a mistake
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    network.eval().to(dtype).save_pretrained(folder)
    path = folder / "model.safetensors"
    encoder, source = model.build().eval(), HuggingFaceWeights(path=str(path))
    return encoder, load_pretrained(encoder, source.read(), source.description), path


def through_blocks(blocks, norm, tokens):
    for block in blocks:
        found = block(tokens) if not hasattr(block, "self_attn") else block(tokens, None)
        tokens = found[0] if isinstance(found, tuple) else found
    return norm(tokens)


LAYOUTS = {
    "siglip": (siglip, SIGLIP),
    "siglip with text": (siglip_with_text, SIGLIP),
    "dinov2": (dino, DINO),
    "dinov2 with classes": (dino_with_classes, DINO),
    "dinov2 with registers": (dino_with_registers, DINO),
    "dinov2, layer scale here too": (dino, DINO.model_copy(update={"layer_scale": 0.1})),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_compute_what_transformers_compute(layout, tmp_path):
    build, model = LAYOUTS[layout]
    network = build()
    encoder, _, _ = saved(network, tmp_path, model)
    tokens = torch.randn(2, 20, WIDTH)
    with torch.no_grad():
        here = through_blocks(encoder.blocks, encoder.norm, tokens)
        there = through_blocks(*transformer(network), tokens)
    assert torch.allclose(here, there, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_of_the_file_is_loaded_or_named(layout, tmp_path):
    build, model = LAYOUTS[layout]
    encoder, message, path = saved(build(), tmp_path, model)
    found, total = HuggingFaceWeights(path=str(path)).read(), len(load_file(path))
    joined = 2 * 2 * DEPTH  # query, key and value become one layer, of weight and bias
    assert len(found.tensors) + 1 + len(found.unused_names) == total - joined
    no_place = len(found.tensors.keys() & {"registers"})
    loaded = len(found.tensors) + 1 - no_place
    assert f"{loaded} of {total - joined} tensors loaded" in message
    assert not no_place or "not used: embeddings.cls_token, embeddings.mask_token" in message
    assert "positions are sines of millimetres here" in message
    assert "patch embedding inflated from 14x14 to 8x8x8" in message
    assert "initialized randomly" not in message
    assert torch.isfinite(encoder(torch.randn(1, 1, 16, 16, 16), torch.ones(1, 3))).all()


def test_a_grey_image_gets_the_token_that_transformers_gives_it(tmp_path):
    network = dino()
    model = DINO.model_copy(update={"patch_voxels": (4, 14, 14)})
    encoder, _, _ = saved(network, tmp_path, model)
    image = torch.randn(14, 14)
    with torch.no_grad():
        embedded = network.embeddings.patch_embeddings(image.expand(1, 3, 14, 14).clone())
        here = encoder.embed(image.expand(4, 14, 14).reshape(1, -1))
    assert torch.allclose(here[0], embedded[0, 0], atol=1e-5)


def test_registers_are_loaded_where_the_model_has_as_many(tmp_path):
    network = dino_with_registers()
    model = DINO.model_copy(update={"registers": 4})
    encoder, message, _ = saved(network, tmp_path, model)
    assert torch.equal(encoder.registers, network.embeddings.register_tokens.flatten())
    assert "embeddings.register_tokens" not in message


def test_half_precision_is_read_as_it_is(tmp_path):
    network = siglip()
    encoder, _, _ = saved(network, tmp_path, SIGLIP, torch.bfloat16)
    weight = network.encoder.layers[1].mlp.fc1.weight
    assert torch.equal(encoder.blocks[1].mlp.fc1.weight, weight.float())


def changed(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


BAD = {
    "an unknown tensor": (
        lambda t: t.update({"encoder.layer.0.mlp.gate.weight": torch.zeros(1)}),
        r"has encoder\.layer\.0\.mlp\.gate\.weight, which neither SigLIP's nor DINOv2's",
    ),
    "a missing value": (
        lambda t: t.pop("encoder.layer.2.attention.attention.value.weight"),
        r"blocks\.2\.attn\.qkv\.weight differs",
    ),
    "fewer blocks": (
        lambda t: [t.pop(n) for n in list(t) if "layer.2." in n],
        "2 blocks of width 96, 384 inside, and the encoder of `model` has 3 blocks",
    ),
    "another network": (
        lambda t: t.pop("embeddings.patch_embeddings.projection.weight"),
        "there are none, such as",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(fault, tmp_path):
    change, sentence = BAD[fault]
    encoder, _, path = saved(dino(), tmp_path, DINO)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    changed(path, change)
    with pytest.raises(UserError, match=sentence) as raised:
        load_pretrained(encoder, HuggingFaceWeights(path=str(path)).read(), "a file")
    assert "\n" not in str(raised.value) and str(raised.value).startswith("init_from")
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_weights_of_another_activation_are_refused(tmp_path):
    model = SIGLIP.model_copy(update={"activation": "gelu"})
    with pytest.raises(UserError, match=r"set model\.activation to gelu_tanh"):
        saved(siglip(), tmp_path, model)

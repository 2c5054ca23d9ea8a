"""Load pretrained weights into an encoder, so that its blocks compute what they did.

All blocks must fit: a transformer with some pretrained and some random layers is of no use. What
may differ is the rest: patch embedding, registers, last norm, layer scale (multiplied into the
layers before it where the encoder has none; 1 where the file has none), and attention biases,
which are 0 where the file has none.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_pipeline.errors import UserError
from ssl_pipeline.init_from.patch_embedding import resize_patch_embedding
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.models.vit import ViTEncoder

EMBEDDING_WEIGHT, EMBEDDING_BIAS, QKV_BIAS = "embed.weight", "embed.bias", "attn.qkv.bias"
OPTIONAL_NAMES = re.compile(
    r"embed\..+|registers|norm\..+|blocks\.\d+\.(attn\.qkv\.bias|ls[12]\.gamma)"
)
LAYER_SCALE = re.compile(r"(?P<block>blocks\.\d+)\.ls(?P<branch>[12])\.gamma")
SCALED_LAYERS = {"1": "attn.proj", "2": "mlp.fc2"}  # the layer before each scale
LINEAR_PARAMETERS = ("weight", "bias")
THIRD_PARTY_NOTES = (  # what such files do not contain
    "the number of heads is assumed to be that of `model`",
    "their training subjects are not known",
)
MAX_NAMES = 8


@dataclass(frozen=True)
class PretrainedWeights:
    """Tensors of a file under the names of our encoders, and the names that are not used.

    `kernel` (width, z, y, x) is a transformer's patch embedding, None where it cannot be used;
    `activation` is that of its MLPs where it is known, as `model` names it; `notes` are added to
    the message.
    """

    tensors: Mapping[str, Tensor]
    kernel: Tensor | None
    activation: str = ""
    unused_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load_pretrained(encoder: Encoder, weights: PretrainedWeights, source: str) -> str:
    """Replace the encoder's weights by those that fit; returns a one-sentence summary.

    `source` says where the weights come from. Raises UserError where they are another network's.
    """
    state = encoder.state_dict()
    tensors, folded = _fold_layer_scale(weights.tensors, state)
    _check_compatibility(state, tensors)
    embedding = ""
    if isinstance(encoder, ViTEncoder):
        _check_activation(encoder, weights)
        if weights.kernel is None:
            tensors.pop(EMBEDDING_BIAS, None)
        else:
            tensors[EMBEDDING_WEIGHT] = resize_patch_embedding(
                weights.kernel, encoder.patch
            ).flatten(1)
        embedding = _describe_patch_embedding(weights.kernel, encoder)
    loaded = {n: t for n, t in tensors.items() if n in state and t.shape == state[n].shape}
    scales = {
        n: torch.ones_like(state[n]) for n in state if LAYER_SCALE.fullmatch(n) and n not in loaded
    }
    zeros = {
        n: torch.zeros_like(state[n]) for n in state if n.endswith(QKV_BIAS) and n not in loaded
    }
    encoder.load_state_dict({**state, **scales, **zeros, **loaded})
    dropped = [n for n in weights.tensors if n not in loaded and n not in folded]
    unused = [*weights.unused_names, *dropped]
    total = len(weights.tensors) + (weights.kernel is not None) + len(weights.unused_names)
    parts = [
        f"init_from: {total - len(unused)} of {total} tensors loaded from {source}",
        embedding,
        "layer scale multiplied into the layers before it" if folded else "",
        "layer scale initialized to 1" if scales else "",
        "attention biases initialized to 0" if zeros else "",
        _list_names("not used", unused),
        _list_names(
            "initialized randomly", state.keys() - loaded.keys() - scales.keys() - zeros.keys()
        ),
        *weights.notes,
    ]
    return "; ".join(part for part in parts if part) + "."


def _fold_layer_scale(
    found: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors, layer scales that the encoder lacks multiplied in; and the names of these."""
    tensors, folded = dict(found), set()
    for name, gamma in found.items():
        scale = LAYER_SCALE.fullmatch(name)
        if scale and name not in own:
            weight, bias = (
                f"{scale['block']}.{SCALED_LAYERS[scale['branch']]}.{p}" for p in LINEAR_PARAMETERS
            )
            if weight in tensors and bias in tensors:
                tensors[weight] = tensors[weight] * gamma[:, None]
                tensors[bias] = tensors[bias] * gamma
            del tensors[name]
            folded.add(name)
    return tensors, folded


def _check_compatibility(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """UserError where a tensor that is needed is missing or of another shape, or one too many."""
    needed = [name for name in expected if not OPTIONAL_NAMES.fullmatch(name)]
    wrong = [n for n in needed if n not in tensors or tensors[n].shape != expected[n].shape]
    more = [n for n in tensors if n not in expected and not OPTIONAL_NAMES.fullmatch(n)]
    if not wrong and not more:
        return
    theirs, ours = _describe_size(tensors), _describe_size(expected)
    if theirs == ours:
        theirs, ours = f"{theirs}, but {[*wrong, *more][0]} differs", "none that fits"
    raise UserError(
        f"init_from: the weights are of {theirs}, and the encoder of `model` has {ours}: give "
        "`model` their size, or choose other weights."
    )


def _check_activation(encoder: ViTEncoder, weights: PretrainedWeights) -> None:
    """UserError where the MLPs of the weights have another activation than the encoder's."""
    if weights.activation not in ("", encoder.activation):
        raise UserError(
            f"init_from: the MLPs of the weights have the activation {weights.activation}, and "
            f"those of `model` {encoder.activation}: set model.activation to {weights.activation}."
        )


def _describe_size(tensors: Mapping[str, Tensor]) -> str:
    """Depth and widths of a transformer, in words."""
    blocks = {int(m[1]) for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))}
    first, inner = tensors.get("blocks.0.norm1.weight"), tensors.get("blocks.0.mlp.fc1.weight")
    if first is None or inner is None:
        return "no blocks of a vision transformer"
    return f"{len(blocks)} blocks of width {len(first)}, {len(inner)} inside"


def _describe_patch_embedding(kernel: Tensor | None, encoder: ViTEncoder) -> str:
    """How the patch embedding was loaded."""
    new = "x".join(map(str, encoder.patch))
    if kernel is None:
        return f"patch embedding of {new} initialized randomly"
    depth, *plane = kernel.shape[1:]
    if tuple(kernel.shape[1:]) == encoder.patch:
        return f"patch embedding of {new} unchanged"
    if depth == 1:
        return f"patch embedding inflated from {'x'.join(map(str, plane))} to {new}"
    return f"patch embedding resized from {'x'.join(map(str, kernel.shape[1:]))} to {new}"


def _list_names(title: str, names: Iterable[str]) -> str:
    """Names of tensors, those of all blocks as one; empty where there are none."""
    kinds = sorted({_group_name(name) for name in names})
    more = f" and {len(kinds) - MAX_NAMES} more" if len(kinds) > MAX_NAMES else ""
    return f"{title}: {', '.join(kinds[:MAX_NAMES])}{more}" if kinds else ""


def _group_name(name: str) -> str:
    """A part of all blocks, or a part of the network that has no blocks of ours."""
    layer = re.sub(r"\.(weight|bias)$", "", name)
    if layer.startswith("blocks."):
        return re.sub(r"\.\d+", ".*", layer)
    return re.split(r"\.\d+", layer)[0]

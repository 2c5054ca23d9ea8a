"""Put found weights into an encoder, so that its blocks compute what they did, and say what became
of them.

All blocks must fit: a transformer with some of another's layers and some from random weights is
neither. What may differ is what stands around them: patch embedding, registers, last norm, layer
scale (multiplied into the layers before it where the encoder has none; 1 where the file has none),
and biases of attention, which are 0 where the file has none.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_pipeline.errors import UserError
from ssl_pipeline.init_from.patch_embedding import resized
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.models.vit import ViTEncoder

EMBEDDING, BIAS, QKV_BIAS = "embed.weight", "embed.bias", "attn.qkv.bias"
OPTIONAL = re.compile(r"embed\..+|registers|norm\..+|blocks\.\d+\.(attn\.qkv\.bias|ls[12]\.gamma)")
SCALE = re.compile(r"(?P<block>blocks\.\d+)\.ls(?P<branch>[12])\.gamma")
SCALED = {"1": "attn.proj", "2": "mlp.fc2"}  # the layer before each scale
PARTS = ("weight", "bias")
FOREIGN = (  # what no such file says
    "as many heads as `model` has are taken for granted",
    "whom they were trained on is not known",
)
MOST_NAMES = 8


@dataclass(frozen=True)
class Found:
    """What a file holds: tensors under the names of our encoders, and names without a use here.

    `kernel` (width, z, y, x) is a transformer's patch embedding, None where it cannot be used;
    `notes` are what is to be told besides.
    """

    tensors: Mapping[str, Tensor]
    kernel: Tensor | None
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def take_over(encoder: Encoder, found: Found, source: str) -> str:
    """Replace the encoder's weights by what fits; returns the sentence that tells of it.

    `source` says where the weights come from. Raises UserError where they are another network's.
    """
    own = encoder.state_dict()
    tensors, folded = _folded(found.tensors, own)
    _refuse_misfit(own, tensors)
    embedding = ""
    if isinstance(encoder, ViTEncoder):
        if found.kernel is None:
            tensors.pop(BIAS, None)
        else:
            tensors[EMBEDDING] = resized(found.kernel, encoder.patch).flatten(1)
        embedding = _embedding_said(found.kernel, encoder)
    taken = {n: t for n, t in tensors.items() if n in own and t.shape == own[n].shape}
    scales = {n: torch.ones_like(own[n]) for n in own if SCALE.fullmatch(n) and n not in taken}
    zeros = {n: torch.zeros_like(own[n]) for n in own if n.endswith(QKV_BIAS) and n not in taken}
    encoder.load_state_dict({**own, **scales, **zeros, **taken})
    dropped = [n for n in found.tensors if n not in taken and n not in folded]
    left = [*found.left, *dropped]
    total = len(found.tensors) + (found.kernel is not None) + len(found.left)
    said = [
        f"init_from: {total - len(left)} of {total} tensors taken over from {source}",
        embedding,
        "layer scale multiplied into the layers before it" if folded else "",
        "layer scale begins as 1" if scales else "",
        "biases of attention begin as 0" if zeros else "",
        _listed("left out", left),
        _listed("begins anew", own.keys() - taken.keys() - scales.keys() - zeros.keys()),
        *found.notes,
    ]
    return "; ".join(part for part in said if part) + "."


def _folded(
    found: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors, layer scales that the encoder lacks multiplied in; and the names of these."""
    tensors, folded = dict(found), set()
    for name, gamma in found.items():
        scale = SCALE.fullmatch(name)
        if scale and name not in own:
            weight, bias = (f"{scale['block']}.{SCALED[scale['branch']]}.{p}" for p in PARTS)
            if weight in tensors and bias in tensors:
                tensors[weight] = tensors[weight] * gamma[:, None]
                tensors[bias] = tensors[bias] * gamma
            del tensors[name]
            folded.add(name)
    return tensors, folded


def _refuse_misfit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """UserError where a tensor that is needed is missing or of another shape, or one too many."""
    needed = [name for name in own if not OPTIONAL.fullmatch(name)]
    wrong = [n for n in needed if n not in tensors or tensors[n].shape != own[n].shape]
    more = [n for n in tensors if n not in own and not OPTIONAL.fullmatch(n)]
    if not wrong and not more:
        return
    theirs, ours = _size(tensors), _size(own)
    if theirs == ours:
        theirs, ours = f"{theirs}, but {[*wrong, *more][0]} differs", "none that fits"
    raise UserError(
        f"init_from: the weights are of {theirs}, and the encoder of `model` has {ours}: choose a "
        "model or its preset that fits them, or other weights."
    )


def _size(tensors: Mapping[str, Tensor]) -> str:
    """The layers of a transformer, in words."""
    blocks = {int(m[1]) for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))}
    first, inner = tensors.get("blocks.0.norm1.weight"), tensors.get("blocks.0.mlp.fc1.weight")
    if first is None or inner is None:
        return "no blocks of a vision transformer"
    return f"{len(blocks)} blocks of width {len(first)}, {len(inner)} inside"


def _embedding_said(kernel: Tensor | None, encoder: ViTEncoder) -> str:
    """What became of the patch embedding."""
    new = "x".join(map(str, encoder.patch))
    if kernel is None:
        return f"patch embedding of {new} made anew"
    depth, *plane = kernel.shape[1:]
    if tuple(kernel.shape[1:]) == encoder.patch:
        return f"patch embedding of {new} as it is"
    if depth == 1:
        return f"patch embedding inflated from {'x'.join(map(str, plane))} to {new}"
    return f"patch embedding resized from {'x'.join(map(str, kernel.shape[1:]))} to {new}"


def _listed(title: str, names: Iterable[str]) -> str:
    """Names of tensors, those of equal parts of a network as one; empty where there are none."""
    kinds = sorted({_kind(name) for name in names})
    more = f" and {len(kinds) - MOST_NAMES} more" if len(kinds) > MOST_NAMES else ""
    return f"{title}: {', '.join(kinds[:MOST_NAMES])}{more}" if kinds else ""


def _kind(name: str) -> str:
    """A part of all blocks, or a part of the network that has no blocks of ours."""
    layer = re.sub(r"\.(weight|bias)$", "", name)
    if layer.startswith("blocks."):
        return re.sub(r"\.\d+", ".*", layer)
    return re.split(r"\.\d+", layer)[0]

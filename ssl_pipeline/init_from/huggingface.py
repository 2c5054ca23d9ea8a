"""Initial weights from 2D vision transformers in the layouts of Hugging Face's transformers.

SigLIP's layout is also MedSigLIP's, DINOv2's also RAD-DINO's; a whole SigLIP or a classifier around
the transformer may be in the file. Colours, positions, class token and the inflated patch are
treated as timm's are.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from ssl_pipeline.errors import UserError
from ssl_pipeline.init_from.weights_source import WeightsSource

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_pipeline.init_from.transfer import PretrainedWeights

KERNEL_NAME = re.compile(r"embeddings\.(patch_embedding|patch_embeddings\.projection)\.weight")
ACTIVATIONS = {"patch_embedding": "gelu_tanh", "patch_embeddings.projection": "gelu"}
BLOCK = r"encoder\.layers?\.(\d+)\."
NAME_RULES = (
    (
        re.compile(r"embeddings\.(?:patch_embedding|patch_embeddings\.projection)\.bias"),
        "embed.bias",
    ),
    (re.compile(r"embeddings\.register_tokens"), "registers"),
    (re.compile(rf"{BLOCK}(?:layer_)?norm([12])\.(.+)"), r"blocks.\1.norm\2.\3"),
    (
        re.compile(rf"{BLOCK}(?:self_attn\.out_proj|attention\.output\.dense)\.(.+)"),
        r"blocks.\1.attn.proj.\2",
    ),
    (re.compile(rf"{BLOCK}mlp\.(fc[12])\.(.+)"), r"blocks.\1.mlp.\2.\3"),
    (re.compile(rf"{BLOCK}layer_scale([12])\.lambda1"), r"blocks.\1.ls\2.gamma"),
    (re.compile(r"(?:post_)?layernorm\.(.+)"), r"norm.\1"),
)
# Of a block the three are one layer here, in this order.
QUERY_KEY_VALUE = re.compile(
    rf"{BLOCK}(?:self_attn\.(?P<first>[qkv])_proj|attention\.attention\.(?P<word>query|key|value))"
    r"\.(?P<parameter>weight|bias)"
)
UNUSED = (
    (re.compile(r"embeddings\.position_.+"), "positions are sines of millimetres here"),
    (re.compile(r"embeddings\.cls_token"), "no token stands for the crop"),
    (re.compile(r"embeddings\.mask_token"), "hidden patches have no token"),
    (re.compile(r"head\..+"), "tokens are pooled without a head"),
)


class HuggingFaceWeights(WeightsSource):
    """A state dict of transformers' SigLIP or DINOv2 (with registers too), or one like them."""

    name: Literal["huggingface"] = "huggingface"

    def read(self) -> "PretrainedWeights":
        """Its tensors under our names; the kernel is (width, 1, y, x).

        Raises UserError for a tensor of the transformer that neither layout has.
        """
        from ssl_pipeline.init_from.transfer import THIRD_PARTY_NOTES, PretrainedWeights
        from ssl_pipeline.init_from.weights_file import read_network

        tensors, left = read_network(self.weights_path, KERNEL_NAME)
        (layout,) = filter(None, map(KERNEL_NAME.fullmatch, tensors))
        kernel = tensors.pop(layout[0])
        found, parts, unused = {}, {}, []
        for name, tensor in tensors.items():
            if QUERY_KEY_VALUE.fullmatch(name):
                parts[name] = tensor
            elif ours := _encoder_name(name):
                found[ours] = tensor.flatten() if ours == "registers" else tensor
            else:
                unused.append(name)
        reasons = dict.fromkeys(map(_reason, unused))
        return PretrainedWeights(
            {**found, **_joined(parts)},
            kernel.sum(1)[:, None] if kernel.ndim == 4 else None,  # (width, colours, y, x)
            activation=ACTIVATIONS[layout[1]],
            unused_names=(*unused, *left),
            notes=(*reasons, *THIRD_PARTY_NOTES),
        )


def _encoder_name(name: str) -> str | None:
    rules = ((rule.fullmatch(name), new) for rule, new in NAME_RULES)
    return next((match.expand(new) for match, new in rules if match), None)


def _reason(name: str) -> str:
    """Why a tensor of the transformer is not used."""
    for rule, reason in UNUSED:
        if rule.fullmatch(name):
            return reason
    raise UserError(
        f"init_from.path: the transformer has {name}, which neither SigLIP's nor DINOv2's layout "
        "does, so its blocks would not compute what they did: choose other weights."
    )


def _joined(parts: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Query, key and value of each block as one layer."""
    import torch

    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in parts.items():
        match = QUERY_KEY_VALUE.fullmatch(name)
        assert match, "it was chosen by this pattern"
        layer = f"blocks.{match[1]}.attn.qkv.{match['parameter']}"
        layers.setdefault(layer, {})[match["first"] or match["word"][0]] = tensor
    return {
        layer: torch.cat([own[first] for first in "qkv"])
        for layer, own in layers.items()
        if len(own) == len("qkv")
    }

"""The weights under the names of timm's VisionTransformer, as safetensors.

The blocks are timm's own, so they load as they are: `Block(dim, heads, mlp_ratio, qkv_bias=True,
qk_norm=qk_norm, init_values=layer_scale)`, one for each number behind `blocks.`. A whole
`VisionTransformer` loads them with a patch embedding for volumes (a convolution as large as its
step), `class_token=False`, `global_pool=""`, as many `reg_tokens` as the encoder has registers
(`no_embed_class=True`; these come first in its output), and a last norm whose epsilon is 1e-5.
The key `pos_embed` (1, tokens, dim) is missing, for positions depend on crop and spacing: compute
it before loading. The bundle's README has all of this as code that needs timm alone.
"""

from pathlib import Path

from safetensors.torch import save

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.bundle import LoadedEncoder
from ssl_pipeline.io.atomic import write_bytes

SUFFIX = ".safetensors"
SUPPORTED_PREFIXES = ("embed.", "registers", "blocks.", "norm.")


def write(encoder: LoadedEncoder, path: Path) -> str:
    """Write a vision transformer's weights.

    Raises UserError where timm's transformer has no place for some of them.
    """
    weights = dict(encoder.model.state_dict())
    foreign = [name for name in weights if not name.startswith(SUPPORTED_PREFIXES)]
    if foreign:
        raise UserError(
            f"timm's VisionTransformer has no place for {foreign[0]} of this encoder: export it as "
            "state_dict or onnx."
        )
    patches = weights.pop("embed.weight")  # (dim, voxels)
    weights["patch_embed.proj.weight"] = patches.reshape(-1, 1, *encoder.model.patch).contiguous()
    weights["patch_embed.proj.bias"] = weights.pop("embed.bias")
    if "registers" in weights:
        weights["reg_token"] = weights.pop("registers").reshape(1, -1, encoder.model.dim)
    write_bytes(path, save(weights))
    return f"{len(weights)} tensors for timm's VisionTransformer, without positions"

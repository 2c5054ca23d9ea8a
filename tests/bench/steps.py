"""Training steps of one masked autoencoder: ours, MONAI's and lightly's, of equal size.

Width, depth, heads, tokens, seen tokens, crops and optimizer are the same; parameters differ by
less than 1%. Peers have a class token more, as they are shipped. Every step is forward, backward
and fused AdamW on crops that are ready on the device; our two views of a place are two crops.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import ssl_pipeline.torchvision_cure  # noqa: F401  (before timm)

import torch
from lightly.models import utils
from lightly.models.modules import (
    MaskedVisionTransformerDecoderTIMM,
    MaskedVisionTransformerTIMM,
)
from monai.networks.nets import MaskedAutoEncoderViT
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_pipeline.models.vit import ViTEncoder
from ssl_pipeline.models.vit_config import SIZES, ViT
from ssl_pipeline.objectives import Hybrid, Mae
from ssl_pipeline.objectives.config import Contrast, Reconstruction
from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.objectives.step import backward
from ssl_pipeline.training.device import Compute
from ssl_pipeline.training.distributed import Ranks
from ssl_pipeline.training.world import World
from ssl_pipeline.views.augment import seen
from ssl_pipeline.views.blocks import Blocks
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.cut import Batch, cut
from ssl_pipeline.views.tokens import gather, patchify
from tests.bench.stored import PATCH

Step = Callable[[], object]
VOXELS = PATCH[0] * PATCH[1] * PATCH[2]
HIDDEN = 0.75


@dataclass(frozen=True)
class Setting:
    """Sizes of a comparison."""

    name: str
    side: int  # of a crop, in voxels
    pairs: int
    encoder: tuple[int, int, int]  # width, depth, heads
    decoder: tuple[int, int]  # width, depth

    @property
    def views(self) -> Views:
        return Views(crop_voxels=(self.side,) * 3, keep=1 - HIDDEN)

    @property
    def tokens(self) -> int:
        return (self.side // PATCH[0]) ** 3


SMALL = Setting("192 x 12", 64, 4, (192, 12, 3), (96, 4))
TINY = Setting("tiny", 32, 48, SIZES["tiny"], (64, 2))
VIT_B = Setting("ViT-B", 64, 64, SIZES["B"], (384, 4))


def section(setting: Setting) -> ViT:
    """The project's own encoder in any size: one for which there is no preset has a name here."""
    SIZES[setting.name] = setting.encoder
    return ViT().model_copy(update={"preset": setting.name})  # a copy is not validated


def objective(setting: Setting, kind: type[Mae | Hybrid] = Mae, decode: float = 1.0) -> Objective:
    """The project's own objective around that encoder; a hybrid has all of its terms."""
    width, depth = setting.decoder
    part = Reconstruction(decoder_width=width, decoder_depth=depth, decode=decode)
    terms = {"contrast": Contrast(global_weight=0.1)} if kind is Hybrid else {}
    return kind(reconstruction=part, **terms).build(section(setting).build())


class Dense(ViTEncoder):
    """The same encoder with all tokens computed, of which the seen ones go on."""

    def sparse(
        self, crops: Tensor, spacing_mm: Tensor, visible: Tensor, survive: Tensor | None = None
    ) -> Tensor:
        return gather(self.forward(crops, spacing_mm), visible)


def dense(setting: Setting) -> Objective:
    """The project's objective with an encoder that computes all tokens."""
    made = objective(setting)
    made.encoder.__class__ = Dense
    return made


def ours(made: Objective, compute: Compute, ready: tuple[Batch, Tensor]) -> Step:
    """A step by the project's own `backward` on crops that are cut already."""
    return _step(made, compute, [ready], lambda part: part)


def whole(made: Objective, compute: Compute, blocks: Blocks, views: Views) -> Step:
    """The same from blocks: crops are cut, masked and augmented within the step."""

    def see(part: Blocks) -> tuple[Batch, Tensor]:
        return seen(part.to(compute.device), views, PATCH)

    return _step(made, compute, [blocks], see)


def build(name: str, setting: Setting, compute: Compute, blocks: Blocks) -> Step:
    """A step by its name in the tables."""
    if name in ("MAE", "hybrid"):
        kind = {"MAE": Mae, "hybrid": Hybrid}[name]
        return whole(objective(setting, kind), compute, blocks, setting.views)
    ready = cut_already(blocks, setting, compute)
    if name in PEERS:
        return peer(PEERS[name](setting), compute, ready)
    if name == "dense":
        return ours(dense(setting), compute, ready)
    made = objective(setting, decode=1 / 3 if "1/3" in name else 1.0)
    if "compiled" in name:
        made.compile()
    return ours(made, compute, ready)


def _step(made: Objective, compute: Compute, parts: list, see: Callable) -> Step:
    compute.apply(World(), made)
    made.to(compute.device).train()
    optimizer, ranks = _adamw(made), Ranks(World())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        backward(made, parts, see, 1.0, ranks, autocast=compute.autocast, scale=lambda loss: loss)
        optimizer.step()
        _wait(compute)

    return step


def peer(net: nn.Module, compute: Compute, ready: tuple[Batch, Tensor]) -> Step:
    """A step of a module that gives its loss of images and their clean patches.

    Threads and attention are set as for ours, memory is as its users have it.
    """
    torch.set_num_threads(compute.threads)
    compute.tell(net)
    net.to(compute.device).train()
    optimizer, (batch, images) = _adamw(net), ready

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with compute.autocast():
            loss = net(images, patchify(batch.clean, PATCH))
        loss.backward()
        optimizer.step()
        _wait(compute)

    return step


class Monai(nn.Module):
    """MONAI's masked autoencoder with the loss of its masked patches.

    Under bf16 it fails as shipped, for it puts tokens of bf16 among mask tokens of fp32; `cured`,
    they are fp32 before.
    """

    def __init__(self, setting: Setting, cured: bool = False) -> None:
        super().__init__()
        (width, depth, heads), (narrow, short) = setting.encoder, setting.decoder
        self.net = MaskedAutoEncoderViT(
            in_channels=1,
            img_size=setting.side,
            patch_size=PATCH,
            hidden_size=width,
            mlp_dim=4 * width,
            num_layers=depth,
            num_heads=heads,
            masking_ratio=HIDDEN,
            decoder_hidden_size=narrow,
            decoder_mlp_dim=4 * narrow,
            decoder_num_layers=short,
            decoder_num_heads=max(1, narrow // 32),
            qkv_bias=True,
        )
        if cured:
            self.net.decoder_embed.register_forward_hook(lambda _, __, out: out.float())

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        said, mask = self.net(images)
        each = (said.float() - target).square().mean(dim=-1)
        return (each * mask).sum() / mask.sum()


class PatchEmbed3D(nn.Module):
    """What timm's transformer takes in place of its own embedding of 2D patches."""

    def __init__(self, img_size: int, patch_size: int, embed_dim: int, **_: object) -> None:
        super().__init__()
        self.patch_size, self.grid_size = PATCH, (img_size // patch_size,) * 3
        self.num_patches = (img_size // patch_size) ** 3
        self.proj = nn.Linear(VOXELS, embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(patchify(images, PATCH))


class Lightly(nn.Module):
    """lightly's modules put together as its example of a masked autoencoder does, in 3D."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        (width, depth, heads), (narrow, short) = setting.encoder, setting.decoder
        vit = VisionTransformer(
            img_size=setting.side,
            patch_size=PATCH[0],
            in_chans=1,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            embed_layer=PatchEmbed3D,
        )
        vit.pos_embed.requires_grad_(False)  # as its own sine-cosine positions are
        self.encoder = MaskedVisionTransformerTIMM(vit, pos_embed_initialization="skip")
        self.encoder.mask_token.requires_grad_(False)  # the decoder has its own
        self.embed = nn.Linear(width, narrow)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=setting.tokens,
            embed_dim=narrow,
            depth=short,
            num_heads=max(1, narrow // 32),
            initialize_weights=False,
        )
        self.to_voxels = nn.Linear(narrow, VOXELS)

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        size = (len(images), self.encoder.sequence_length)
        keep, hide = utils.random_token_mask(size, mask_ratio=HIDDEN, device=images.device)
        seen = self.embed(self.encoder.encode(images, idx_keep=keep))
        full = utils.repeat_token(self.decoder.mask_token, size).to(seen.dtype)
        decoded = self.decoder(utils.set_at_index(full, keep, seen))
        said = self.to_voxels(utils.get_at_index(decoded, hide))
        return (said.float() - utils.get_at_index(target, hide - 1)).square().mean()


PEERS: dict[str, Callable[[Setting], nn.Module]] = {
    "MONAI": lambda setting: Monai(setting, cured=True),
    "lightly": Lightly,
}


def cut_already(blocks: Blocks, setting: Setting, compute: Compute) -> tuple[Batch, Tensor]:
    """Crops and images that all steps are given."""
    there = blocks.to(compute.device)
    batch = cut(there, setting.views, PATCH)
    return batch, batch.clean.clone()


def parameters(module: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def in_fp32(compute: Compute) -> Compute:
    """The same device in full precision."""
    return replace(compute, precision="fp32", fused_attention=True)


def _adamw(module: nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-4, fused=True)


def _wait(compute: Compute) -> None:
    if compute.device != "cpu":
        torch.cuda.synchronize()

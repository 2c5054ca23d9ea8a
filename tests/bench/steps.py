"""Training steps of one masked autoencoder: ours, MONAI's and lightly's, of equal size.

Width, depth, heads, tokens, visible tokens, crops and optimizer are the same; parameters differ by
less than 1%. Peers have a class token more, as they are shipped. Every step is forward, backward
and fused AdamW on crops that are ready on the device; our two views of a sample are two crops.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import ssl_pipeline.torchvision_compat  # noqa: F401  (before timm)

import torch
from lightly.models import utils
from lightly.models.modules import (
    MaskedVisionTransformerDecoderTIMM,
    MaskedVisionTransformerTIMM,
)
from monai.networks.nets import MaskedAutoEncoderViT
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_pipeline.models.encoder import CropFeatures
from ssl_pipeline.models.vit import ViTEncoder
from ssl_pipeline.models.vit_config import PRESETS, ViT, ViTSize
from ssl_pipeline.objectives import Hybrid, Mae
from ssl_pipeline.objectives.backward import backward
from ssl_pipeline.objectives.contrast import Contrast
from ssl_pipeline.objectives.objective import Objective
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.training.compute import Compute
from ssl_pipeline.training.distributed import RankGroup
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.views.augmentation import augmented_views
from ssl_pipeline.views.collate import SampleBatch
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.crops import Batch, crop_views
from ssl_pipeline.views.patches import gather_tokens, patchify
from tests.bench.benchmark_study import PATCH

Step = Callable[[], object]
VOXELS = PATCH[0] * PATCH[1] * PATCH[2]
MASK_RATIO = 0.75


@dataclass(frozen=True)
class StepSize:
    """Sizes of a comparison."""

    name: str
    side: int  # of a crop, in voxels
    batch_size: int
    encoder: ViTSize
    decoder: tuple[int, int]  # width, depth

    @property
    def views(self) -> Views:
        return Views(crop_voxels=(self.side,) * 3, visible_ratio=1 - MASK_RATIO)

    @property
    def token_count(self) -> int:
        return (self.side // PATCH[0]) ** 3


SMALL = StepSize("192 x 12", 64, 4, ViTSize(width=192, depth=12, heads=3), (96, 4))
TINY = StepSize("tiny", 32, 48, PRESETS["tiny"], (64, 2))
SMALLEST = StepSize("48 x 2", 16, 2, ViTSize(width=48, depth=2, heads=3), (48, 1))
VIT_S = StepSize("ViT-S", 64, 64, PRESETS["S"], (192, 4))
VIT_B = StepSize("ViT-B", 64, 64, PRESETS["B"], (384, 4))


def vit_section(setting: StepSize) -> ViT:
    """The project's own encoder."""
    return ViT(size=setting.encoder)


def build_objective(
    setting: StepSize, kind: type[Mae | Hybrid] = Mae, decode_ratio: float = 1.0
) -> Objective:
    """The project's own objective around that encoder; a hybrid has all of its terms."""
    width, depth = setting.decoder
    part = Reconstruction(decoder_width=width, decoder_depth=depth, decode_ratio=decode_ratio)
    terms = {"contrast": Contrast(subject_weight=0.1)} if kind is Hybrid else {}
    return kind(reconstruction=part, **terms).build(vit_section(setting).build())


class DenseEncoder(ViTEncoder):
    """The same encoder with all tokens computed, of which the seen ones go on."""

    def forward_features(
        self,
        crops: Tensor,
        spacing_mm: Tensor,
        visible: Tensor | None = None,
        branch_factors: Tensor | None = None,
    ) -> CropFeatures:
        tokens = super().forward_features(crops, spacing_mm).tokens
        return CropFeatures(tokens if visible is None else gather_tokens(tokens, visible), [])


def dense_objective(setting: StepSize) -> Objective:
    """The project's objective with an encoder that computes all tokens."""
    made = build_objective(setting)
    made.encoder.__class__ = DenseEncoder
    return made


def our_step(objective: Objective, compute: Compute, ready: tuple[Batch, Tensor]) -> Step:
    """A step by the project's own `backward` on crops that are cut already."""
    return _step(objective, compute, [ready], lambda part: part)


def step_with_augmentation(
    objective: Objective, compute: Compute, samples: SampleBatch, views: Views
) -> Step:
    """The same from blocks: crops are cut, masked and augmented within the step."""

    def see(part: SampleBatch) -> tuple[Batch, Tensor]:
        return augmented_views(part.to(compute.device), views, PATCH)

    return _step(objective, compute, [samples], see)


def build_step(name: str, setting: StepSize, compute: Compute, samples: SampleBatch) -> Step:
    """A step by its name in the tables."""
    if name in ("MAE", "hybrid"):
        kind = {"MAE": Mae, "hybrid": Hybrid}[name]
        return step_with_augmentation(
            build_objective(setting, kind), compute, samples, setting.views
        )
    ready = prepare_batch(samples, setting, compute)
    if name in PEERS:
        return peer_step(PEERS[name](setting), compute, ready)
    if name == "dense":
        return our_step(dense_objective(setting), compute, ready)
    made = build_objective(setting, decode_ratio=1 / 3 if "1/3" in name else 1.0)
    if "compiled" in name:
        made.compile()
    return our_step(made, compute, ready)


def _step(
    objective: Objective, compute: Compute, micro_batches: list, make_views: Callable
) -> Step:
    compute.apply(RankInfo(), objective)
    objective.to(compute.device).train()
    optimizer, ranks = _adamw(objective), RankGroup(RankInfo())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        backward(
            objective,
            micro_batches,
            make_views,
            1.0,
            ranks,
            autocast=compute.autocast,
            scale_loss=lambda loss: loss,
        )
        optimizer.step()
        _wait(compute)

    return step


def peer_step(net: nn.Module, compute: Compute, ready: tuple[Batch, Tensor]) -> Step:
    """A step of a module that gives its loss of images and their clean patches.

    Threads and attention are set as for ours, memory is as its users have it.
    """
    torch.set_num_threads(compute.threads)
    compute.set_attention_kernel(net)
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


class MonaiMae(nn.Module):
    """MONAI's masked autoencoder with the loss of its masked patches.

    Under bf16 it fails as shipped, for it puts tokens of bf16 among mask tokens of fp32; `cured`,
    they are fp32 before.
    """

    def __init__(self, setting: StepSize, patched: bool = False) -> None:
        super().__init__()
        size, (narrow, short) = setting.encoder, setting.decoder
        self.net = MaskedAutoEncoderViT(
            in_channels=1,
            img_size=setting.side,
            patch_size=PATCH,
            hidden_size=size.width,
            mlp_dim=size.inner_width,
            num_layers=size.depth,
            num_heads=size.heads,
            masking_ratio=MASK_RATIO,
            decoder_hidden_size=narrow,
            decoder_mlp_dim=4 * narrow,
            decoder_num_layers=short,
            decoder_num_heads=max(1, narrow // 32),
            qkv_bias=True,
        )
        if patched:
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


class LightlyMae(nn.Module):
    """lightly's modules put together as its example of a masked autoencoder does, in 3D."""

    def __init__(self, setting: StepSize) -> None:
        super().__init__()
        size, (narrow, short) = setting.encoder, setting.decoder
        vit = VisionTransformer(
            img_size=setting.side,
            patch_size=PATCH[0],
            in_chans=1,
            num_classes=0,
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.heads,
            embed_layer=PatchEmbed3D,
        )
        vit.pos_embed.requires_grad_(False)  # as its own sine-cosine positions are
        self.encoder = MaskedVisionTransformerTIMM(vit, pos_embed_initialization="skip")
        self.encoder.mask_token.requires_grad_(False)  # the decoder has its own
        self.embed = nn.Linear(size.width, narrow)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=setting.token_count,
            embed_dim=narrow,
            depth=short,
            num_heads=max(1, narrow // 32),
            initialize_weights=False,
        )
        self.to_voxels = nn.Linear(narrow, VOXELS)

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        size = (len(images), self.encoder.sequence_length)
        keep, hide = utils.random_token_mask(size, mask_ratio=MASK_RATIO, device=images.device)
        seen = self.embed(self.encoder.encode(images, idx_keep=keep))
        full = utils.repeat_token(self.decoder.mask_token, size).to(seen.dtype)
        decoded = self.decoder(utils.set_at_index(full, keep, seen))
        said = self.to_voxels(utils.get_at_index(decoded, hide))
        return (said.float() - utils.get_at_index(target, hide - 1)).square().mean()


PEERS: dict[str, Callable[[StepSize], nn.Module]] = {
    "MONAI": lambda setting: MonaiMae(setting, patched=True),
    "lightly": LightlyMae,
}


def prepare_batch(
    samples: SampleBatch, setting: StepSize, compute: Compute
) -> tuple[Batch, Tensor]:
    """Crops and images that all steps are given."""
    there = samples.to(compute.device)
    batch = crop_views(there, setting.views, PATCH)
    return batch, batch.clean.clone()


def parameter_count(module: nn.Module) -> int:
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

"""From tokens to voxels: transposed convolutions, and a shallow look at the raw voxels beside them.

A token stands for some hundred voxels, which transposed convolutions double, axis by axis, up to
one. The raw voxels join at the end through one convolution, since tokens of 8 voxels alone blur a
boundary. On an easy task that shortcut carries much of the result whatever the encoder knows, so it
can be left out.

There is no normalisation: a window of one tissue has nothing to be normalised by, and instance norm
there drew classes out of noise. Background starts likely, for most voxels are. After 150 steps with
5 labelled subjects, validation Dice of two small structures was .15 and .58 so, and .01 and .22
with instance norm and all classes alike.
"""

from jaxtyping import Float
from torch import Tensor, cat, nn

from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.views.config import Triple

WIDTH = 8  # channels at full resolution
WIDEST = 96  # channels right above the tokens
BACKGROUND_LOGIT = 3.0  # what background starts ahead of each class


def factors(patch: Triple) -> list[Triple]:
    """Enlargements per stage whose product is the patch: 2 where it is even, else all at once."""
    left, stages = list(patch), []
    while max(left) > 1:
        z, y, x = (2 if side % 2 == 0 else side for side in left)
        stages.append((z, y, x))
        left = [side // step for side, step in zip(left, (z, y, x), strict=True)]
    return stages


def _smooth(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(before, after, 3, padding=1), nn.LeakyReLU(0.01))


class Segmenter(nn.Module):
    """An encoder with a decoder of voxel classes, background first."""

    def __init__(self, encoder: Encoder, n_classes: int, *, raw_voxels: bool) -> None:
        super().__init__()
        self.encoder = encoder
        stages = factors(encoder.patch)
        widths = [min(WIDEST, WIDTH * 2 ** (len(stages) - 1 - i)) for i in range(len(stages))]
        layers: list[nn.Module] = []
        width = encoder.dim
        for step, after in zip(stages, widths, strict=True):
            layers += [nn.ConvTranspose3d(width, after, step, step), nn.LeakyReLU(0.01)]
            width = after
        self.up = nn.Sequential(*layers)
        self.raw = _smooth(1, WIDTH) if raw_voxels else None
        joined = width + (WIDTH if raw_voxels else 0)
        last = nn.Conv3d(WIDTH, n_classes + 1, 1)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        nn.init.constant_(last.bias[:1], BACKGROUND_LOGIT)  # type: ignore[index]
        self.out = nn.Sequential(_smooth(joined, WIDTH), last)

    def forward(
        self, images: Float[Tensor, "batch z y x"], spacing_mm: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch classes z y x"]:
        """Logits of background and classes for every voxel."""
        voxels = images[:, None]
        tokens = self.encoder(voxels, spacing_mm)
        grid = [side // p for side, p in zip(images.shape[1:], self.encoder.patch, strict=True)]
        enlarged = self.up(tokens.transpose(1, 2).reshape(len(tokens), -1, *grid))
        if self.raw is not None:
            enlarged = cat([enlarged, self.raw(voxels)], dim=1)
        logits: Tensor = self.out(enlarged)
        return logits

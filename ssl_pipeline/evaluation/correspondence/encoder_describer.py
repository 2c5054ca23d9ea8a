"""Descriptors by an encoder: its maps of every resolution, or those of its U-Net's decoder.

They are what contrast between points of a scan trains, but for the head, which no bundle keeps.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ssl_pipeline.evaluation.correspondence.describer import Describer, Place, Places, Values
from ssl_pipeline.evaluation.data.crops import crops_of_volume
from ssl_pipeline.evaluation.data.features import to_tensors
from ssl_pipeline.evaluation.data.labelled_crops import CropBox, box_about
from ssl_pipeline.evaluation.data.source_grid import Slab
from ssl_pipeline.evaluation.finetuning.sliding_window import (
    WindowSettings,
    sliding_window_inference,
)
from ssl_pipeline.models.encoder import Encoder
from ssl_pipeline.models.unet_decoder import PretrainedNetwork, UNetDecoder
from ssl_pipeline.objectives.shared_points import sample_maps
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.types import Triple, triple

OVERLAP = 0.25  # share of a window that the next one overlaps
WINDOWS_PER_PASS = 4


class EncoderDescriber(Describer):
    """Descriptors by an encoder in windows of `window` voxels."""

    def __init__(self, network: PretrainedNetwork, window: Triple, device: str = "cpu") -> None:
        self.network, self.window, self.device = network.to(device).eval(), window, device
        self.patch = network.encoder.patch
        self.step = triple(side // 2 if side % 2 == 0 else side for side in self.patch)

    def grid_values(self, scan: PreparedVolume) -> Iterator[Slab]:
        """Values from windows that slide over the scan; see `Describer`."""
        step = np.array(self.step)
        grid = triple((-(-np.array(scan.meta.shape) // step)).tolist())
        window = triple((np.array(self.window) // step).tolist())
        middles = np.indices(window).reshape(3, -1).T * step + (step - 1) / 2

        def values(starts: Sequence[Triple]) -> Tensor:
            at = [triple((np.array(start) * step).tolist()) for start in starts]
            found = self._window_values(scan, at, middles)
            placed: Tensor = found.transpose(1, 2).unflatten(2, window)
            # Windows are averaged as probabilities are, which sum to 1.
            return torch.cat([placed, 1 - placed.sum(dim=1, keepdim=True)], dim=1)

        settings = WindowSettings(window, OVERLAP, WINDOWS_PER_PASS)
        for first, slab in sliding_window_inference(grid, settings, values):
            yield Slab(first, slab[:-1])

    def values_about(self, scan: PreparedVolume, centre: Place, places: Places) -> Values:
        """Values from one window about the centre; see `Describer`."""
        start = box_about(centre, self.window).start
        return self._window_values(scan, [start], places - start)[0].numpy()

    @torch.inference_mode()
    def _window_values(
        self, scan: PreparedVolume, starts: Sequence[Triple], places: Places
    ) -> Float[Tensor, "windows n channels"]:
        """Values at the same places (z, y, x) of each window."""
        boxes = [CropBox(start, self.window) for start in starts]
        images, _, spacing = to_tensors(crops_of_volume(scan, boxes, self.window), self.device)
        maps = self.network.dense_maps(images[:, None], spacing)
        halves = torch.from_numpy(2 * (places + 0.5) / np.array(self.window) - 1).float()
        at = halves.to(self.device).expand(len(images), -1, 3)
        return sample_maps(maps, at).cpu()


def describing_network(
    encoder: Encoder, decoder_weights: Mapping[str, Tensor] | None
) -> PretrainedNetwork:
    """An encoder with the decoder that was trained along, if one was."""
    if decoder_weights is None:
        return PretrainedNetwork(encoder, None)
    with torch.random.fork_rng(devices=[]):
        decoder = UNetDecoder(encoder)
    decoder.load_state_dict(decoder_weights)
    return PretrainedNetwork(encoder, decoder)


def search_window(encoder: Encoder, crop_voxels: Triple) -> Triple:
    """Windows to search with, given the crops of pretraining (z, y, x).

    Twice their size for encoders of several resolutions: with crops of 32 voxels the median error
    on 12 validation CTs of the neck was 23 mm, and in windows of 48 and of 64 it was 20 and 18, for
    less time. A transformer keeps the number of tokens that it learned with.
    """
    factor = 2 if len(encoder.pyramid_channels) > 1 else 1
    return triple(factor * side for side in crop_voxels)

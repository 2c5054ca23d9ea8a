"""A start for nnU-Net: a folder of its plans, and a checkpoint for `nnUNetv2_train`.

The encoder `resenc` computes what `ResidualEncoder` of dynamic-network-architectures does, which
nnU-Net's ResEnc presets are made of: a stem, residual blocks of two 3x3x3 convolutions with
instance norm and LeakyReLU, and shortcuts that average and project. Only the names differ, and
convolutions have no bias, which an instance norm would take away; the plans say so. Every tensor:

    ours                                  nnU-Net's
    stem.P                                encoder.stem.convs.0.P
    stages.I.blocks.J.first.P             encoder.stages.I.blocks.J.conv1.P
    stages.I.blocks.J.second.P            encoder.stages.I.blocks.J.conv2.P
    stages.I.blocks.J.shortcut.P          encoder.stages.I.blocks.J.skip.N.P (1 after a mean, or 0)
    P: conv.weight, scale, shift          conv.weight, norm.weight, norm.bias
    project, norm                         none: they make tokens

nnU-Net's modules hold each tensor twice (`all_modules`), and its decoder holds the encoder, so its
loader asks for all of these names. It loads whole networks alone: the decoder has random weights,
unless one was trained along with the encoder.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.bundle import LoadedEncoder
from ssl_pipeline.export.manifest import BundleManifest
from ssl_pipeline.io.atomic import write_json
from ssl_pipeline.models.resenc import NEGATIVE_SLOPE
from ssl_pipeline.models.resenc_config import ResEnc, ResEncStage
from ssl_pipeline.models.unet_decoder import UNetDecoder
from ssl_pipeline.preprocess.prepare import ct_window

SUFFIX = ""
PLANS, CHECKPOINT = "SslPipelinePlans", "checkpoint.pth"
DATASET = "Dataset900_Pretrained"  # nnU-Net's own command puts another in its place
BATCH_SIZE = 2
PARAMETERS = {  # of a convolution with its norm; nnU-Net has two names for each
    "conv.weight": ("conv.weight", "all_modules.0.weight"),
    "scale": ("norm.weight", "all_modules.1.weight"),
    "shift": ("norm.bias", "all_modules.1.bias"),
}
BLOCK = re.compile(r"stages\.(?P<stage>\d+)\.blocks\.(?P<block>\d+)\.(?P<part>\w+)")
PARTS = {"first": "conv1", "second": "conv2"}
PLACES = ("encoder.", "decoder.encoder.")
NORMALIZATION = {"CT": "CTNormalization", "MR": "ZScoreNormalization"}
RESAMPLING, THICK_SLICES = "resample_data_or_seg_to_shape", {"order_z": 0, "force_separate_z": None}
ARCHITECTURES = "dynamic_network_architectures.architectures"
UNKNOWN_SPACING_MM = (1.0, 1.0, 1.0)  # where each scan kept its own grid


def write(encoder: LoadedEncoder, path: Path) -> str:
    """Write the folder of a `resenc` encoder: plans with a configuration a modality, and weights.

    Raises UserError for another backbone.
    """
    model = encoder.manifest.model
    if not isinstance(model, ResEnc):
        raise UserError(
            f"nnU-Net has no place for the encoder {model.name}: pretrain one with model: "
            "{name: resenc}, or export this one as state_dict or onnx."
        )
    weights = encoder_weights(encoder.model.state_dict(), model.stages)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = UNetDecoder(encoder.model)
    if encoder.decoder:
        decoder.load_state_dict(encoder.decoder)
    network = {f"{place}{name}": value for name, value in weights.items() for place in PLACES}
    path.mkdir()
    torch.save({"network_weights": network | decoder_weights(decoder)}, path / CHECKPOINT)
    write_json(path / f"{PLANS}.json", plans(encoder.manifest, model))
    kind = "pretrained" if encoder.decoder else "random"
    return f"{len(weights)} tensors of nnU-Net's encoder, with plans and a {kind} decoder"


def encoder_weights(
    state: Mapping[str, Tensor], stages: Sequence[ResEncStage]
) -> dict[str, Tensor]:
    """The tensors of nnU-Net's encoder, without `encoder.` before them."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        module, parameter = _split(name)
        if module == "stem":
            found |= _convolution("stem.convs.0", parameter, value)
        elif block := BLOCK.fullmatch(module):
            stage, number = stages[int(block["stage"])], int(block["block"])
            averages = number == 0 and max(stage.stride) > 1
            part = f"skip.{int(averages)}" if block["part"] == "shortcut" else PARTS[block["part"]]
            place = f"stages.{block['stage']}.blocks.{number}.{part}"
            found |= _convolution(place, parameter, value)
    return found


def decoder_weights(decoder: UNetDecoder) -> dict[str, Tensor]:
    """The tensors of nnU-Net's decoder but for those of classes, which its loader leaves out."""
    found: dict[str, Tensor] = {}
    for name, value in decoder.state_dict().items():
        module, parameter = _split(name)
        if module.startswith("stages."):
            found |= _convolution(f"decoder.{module}.convs.0", parameter, value)
        elif name.endswith("weight"):
            found[f"decoder.{name}"] = value
    return found


def plans(manifest: BundleManifest, model: ResEnc) -> dict[str, Any]:
    """nnU-Net's plans, with a configuration for scans of each modality.

    The values of CT become those that the encoder has learned from; MR is standardized by its mean
    and standard deviation, without the encoder's percentiles.
    """
    window, stages = ct_window(manifest.preprocess.ct), model.stages
    return {
        "dataset_name": DATASET,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": list(manifest.crop_voxels),
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            f"3d_fullres_{modality.lower()}": _configuration(manifest, stages, modality)
            for modality in NORMALIZATION
        },
        "experiment_planner_used": "nnUNetPlannerResEncM",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": window.mean,
                "std": window.std,
                "percentile_00_5": window.low,
                "percentile_99_5": window.high,
            }
        },
    }


def _configuration(
    manifest: BundleManifest, stages: Sequence[ResEncStage], modality: str
) -> dict[str, Any]:
    """How scans of a modality are resampled and normalized, and the network."""
    spacing_mm = manifest.preprocess.modality_settings(modality).spacing_mm
    order = {"order": manifest.preprocess.interpolation_order}
    return {
        "data_identifier": f"{PLANS}_{modality}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": BATCH_SIZE,
        "patch_size": list(manifest.crop_voxels),
        "median_image_size_in_voxels": list(manifest.crop_voxels),
        "spacing": list(spacing_mm or UNKNOWN_SPACING_MM),
        "normalization_schemes": [NORMALIZATION[modality]],
        "use_mask_for_norm": [False],
        "resampling_fn_data": RESAMPLING,
        "resampling_fn_seg": RESAMPLING,
        "resampling_fn_data_kwargs": {"is_seg": False, **order, **THICK_SLICES},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **THICK_SLICES},
        "resampling_fn_probabilities": RESAMPLING,
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **THICK_SLICES},
        "architecture": {
            "network_class_name": f"{ARCHITECTURES}.unet.ResidualEncoderUNet",
            "arch_kwargs": network_arguments(stages),
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
    }


def network_arguments(stages: Sequence[ResEncStage]) -> dict[str, Any]:
    """Arguments of `ResidualEncoderUNet`, classes and modules as their names."""
    return {
        "n_stages": len(stages),
        "features_per_stage": [stage.out_channels for stage in stages],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [list(stage.kernel) for stage in stages],
        "strides": [list(stage.stride) for stage in stages],
        "n_blocks_per_stage": [stage.blocks for stage in stages],
        "n_conv_per_stage_decoder": [1] * (len(stages) - 1),
        "conv_bias": False,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"negative_slope": NEGATIVE_SLOPE, "inplace": True},
    }


def _split(name: str) -> tuple[str, str]:
    """A module and its parameter, such as `conv.weight`, of a tensor's name."""
    parameter = next((p for p in PARAMETERS if name.endswith(f".{p}")), "")
    return name.removesuffix(f".{parameter}"), parameter


def _convolution(module: str, parameter: str, value: Tensor) -> dict[str, Tensor]:
    """A tensor of a convolution with its norm, under both names that nnU-Net has for it."""
    return {f"{module}.{theirs}": value for theirs in PARAMETERS[parameter]}

"""A task model as a MONAI bundle, which `python -m monai.bundle run` runs without this project.

It is for segmentation. `models/model.pt2` is the network as torch.export writes it, from crops with
MONAI's axes (x, y, z) to probabilities of classes. `configs/inference.json` reads and prepares
scans by MONAI's transforms, slides windows as the pipeline does and writes the values of the label
files, and `configs/metadata.json` says what goes in and comes out. The whole scan is segmented,
where the pipeline crops it to the body first; percentiles, mean and standard deviation of MR are
those of all voxels, where the pipeline takes the foreground's. Probabilities are those that were
learned, without the temperature of calibration, on which no label depends.
"""

from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_pipeline import __version__
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.finetuning.segmentation_training import mean_probabilities
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation
from ssl_pipeline.export.task_model.bundle import LoadedModel
from ssl_pipeline.export.task_model.manifest import ModelManifest
from ssl_pipeline.io.atomic import write_json, write_text
from ssl_pipeline.preprocess.prepare import ct_window
from ssl_pipeline.types import Spacing

SUFFIX = ""
NETWORK_FILE, README = "models/model.pt2", "docs/README.md"
BATCH_SIZE = 1  # windows that the network takes at once, as it is traced
LOWEST_MR = -2.0  # about where the lower percentile of MR lies, for what is outside of a scan


class MonaiNetwork(nn.Module):
    """A segmentation network with MONAI's axes, for scans of one spacing, with mirrored views."""

    spacing_mm: Tensor

    def __init__(self, network: nn.Module, spacing_mm: Spacing, section: Finetune) -> None:
        super().__init__()
        self.network, self.section = network, section
        self.register_buffer("spacing_mm", torch.tensor(spacing_mm))

    def forward(self, image: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch _ x y z"]:
        """Probabilities of background and classes for every voxel."""
        crops = image[:, 0].permute(0, 3, 2, 1)
        spacing_mm = self.spacing_mm.expand(len(image), 3)
        probabilities = mean_probabilities([self.network], crops, spacing_mm, self.section)
        return probabilities.permute(0, 1, 4, 3, 2)


def write(model: LoadedModel, path: Path) -> str:
    """Write the folder of a bundle.

    Raises UserError for a task that is no segmentation, for a model of scans of two modalities, and
    for a transformer whose scans have no common spacing.
    """
    manifest = model.manifest
    task, modality, spacing_mm = manifest.task, _modality(manifest), _spacing_mm(manifest)
    if not isinstance(task, Segmentation):
        raise UserError(
            f"a MONAI bundle is written of a segmentation, and the task is {task.kind}: predict "
            "with `ssl-pipeline predict`."
        )
    network = MonaiNetwork(
        model.predictor.networks[0], spacing_mm or (1.0, 1.0, 1.0), manifest.finetune
    )
    example = torch.zeros(BATCH_SIZE, 1, *manifest.crop_voxels[::-1])
    program = torch.export.export(network.eval().requires_grad_(False), (example,))
    (path / NETWORK_FILE).parent.mkdir(parents=True)
    torch.export.save(program, path / NETWORK_FILE)
    write_json(path / "configs/inference.json", _inference(manifest, task, modality, spacing_mm))
    write_json(path / "configs/metadata.json", _metadata(manifest, task, modality))
    remarks = _remarks(manifest)
    readme = [f"# {task.title}", *(f"{remark}." for remark in remarks)]
    write_text(path / README, "\n\n".join(readme) + "\n")
    return ". ".join([f"a MONAI bundle of {len(task.class_names)} classes in {modality}", *remarks])


def _remarks(manifest: ModelManifest) -> list[str]:
    """What its user must know, each a sentence without its full stop."""
    found = []
    if manifest.calibration:
        temperature = manifest.calibration.temperature
        found.append(
            f"Its probabilities are as they were learned, without the model's temperature of "
            f"{temperature:.3g}; labels do not depend on it"
        )
    if manifest.finetune.largest_component:
        found.append("It keeps largest components of classes, which needs scikit-image")
    return found


def _modality(manifest: ModelManifest) -> str:
    """The modality of the model's scans."""
    modalities = manifest.training_summary["modalities"]
    if len(modalities) > 1:
        raise UserError(
            f"a MONAI bundle prepares scans of one modality, and the model learned from "
            f"{' and '.join(modalities)}: fine-tune a task with the roots of one."
        )
    return str(modalities[0])


def _spacing_mm(manifest: ModelManifest) -> Spacing | None:
    """The spacing (z, y, x) that scans are resampled to; None where each keeps its own."""
    spacing_mm = manifest.preprocess.modality_settings(_modality(manifest)).spacing_mm
    if spacing_mm is None and manifest.model.is_transformer:
        raise UserError(
            "a MONAI bundle cannot tell a transformer each scan's own spacing: give the study "
            "preprocess.ct.spacing_mm or preprocess.mr.spacing_mm, or take the model resenc."
        )
    return spacing_mm


def _inference(
    manifest: ModelManifest, task: Segmentation, modality: str, spacing_mm: Spacing | None
) -> dict[str, Any]:
    """The configuration that `monai.bundle run` takes, for the scans of `images`."""
    scaling, lowest = _scaling(manifest, modality)
    resampling = []
    if spacing_mm:
        z, y, x = spacing_mm
        resampling.append(_on_image("Spacingd", pixdim=(x, y, z), mode=3))
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "images": [],
        "output_dir": "$@bundle_root + '/predictions'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": f"$torch.export.load(@bundle_root + '/{NETWORK_FILE}').module().to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                _on_image("LoadImaged", image_only=True),
                _on_image("EnsureChannelFirstd"),
                _on_image("Orientationd", axcodes="RAS", labels=None),
                *resampling,
                *scaling,
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": manifest.crop_voxels[::-1],
            "sw_batch_size": BATCH_SIZE,
            "overlap": manifest.finetune.overlap,
            "mode": "gaussian",
            "cval": lowest,
        },
        "predict": "$lambda item: {**item, 'pred': "
        "@inferer(item['image'][None].to(@device), @network_def)[0]}",
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing(manifest, task)},
        "run": ["$[@postprocessing(@predict(@preprocessing({'image': p}))) for p in @images]"],
    }


def _postprocessing(manifest: ModelManifest, task: Segmentation) -> list[dict[str, Any]]:
    """Transforms from probabilities of classes to a file of their values on the scan's own grid."""
    undo = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False}
    values = list(task.class_values)
    where = {"output_dir": "@output_dir", "output_postfix": "seg", "separate_folder": False}
    chosen = manifest.finetune.largest_component
    largest = {
        "_target_": "KeepLargestConnectedComponentd",
        "keys": "pred",
        "is_onehot": False,
        "connectivity": 1,
        **({"applied_labels": list(chosen)} if isinstance(chosen, tuple) else {}),
    }
    return [
        {"_target_": "Invertd", "keys": "pred", **undo},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        *([largest] if manifest.finetune.largest_component else []),
        {
            "_target_": "MapLabelValued",
            "keys": "pred",
            "orig_labels": list(range(1, len(values) + 1)),
            "target_labels": values,
        },
        {"_target_": "SaveImaged", "keys": "pred", "output_dtype": "$'int16'", **where},
    ]


def _scaling(manifest: ModelManifest, modality: str) -> tuple[list[dict[str, Any]], float]:
    """Transforms from a scan's values to the network's input, and its lowest value."""
    if modality == "CT":
        window = ct_window(manifest.preprocess.ct)
        low, high = ((v - window.mean) / window.std for v in (window.low, window.high))
        values = {"a_min": window.low, "a_max": window.high, "b_min": low, "b_max": high}
        return [_on_image("ScaleIntensityRanged", **values, clip=True)], low
    lower, upper = manifest.preprocess.mr.percentiles
    clip = _on_image("ClipIntensityPercentilesd", lower=lower, upper=upper)
    return [clip, _on_image("NormalizeIntensityd")], LOWEST_MR


def _on_image(target: str, **arguments: Any) -> dict[str, Any]:
    """A transform of the scan."""
    return {"_target_": target, "keys": "image", **arguments}


def _metadata(manifest: ModelManifest, task: Segmentation, modality: str) -> dict[str, Any]:
    """What MONAI's specification asks of a bundle."""
    size = list(manifest.crop_voxels[::-1])
    own = {"type": "image", "dtype": "float32", "spatial_shape": size, "is_patch_data": True}
    image = {**own, "format": modality, "num_channels": 1, "channel_def": {"0": "image"}}
    classes = {str(at): name for at, name in enumerate(("background", *task.class_names))}
    return {
        "version": __version__,
        "changelog": {__version__: "as it was fine-tuned"},
        "monai_version": metadata.version("monai"),
        "pytorch_version": metadata.version("torch"),
        "numpy_version": metadata.version("numpy"),
        "required_packages_version": {},
        "task": task.title,
        "description": f"{task.title}: segmentation of {', '.join(task.class_names)} in {modality}",
        "authors": "the owner of the data",
        "copyright": "the owner of the data",
        "intended_use": "research; no medical device",
        "network_data_format": {
            "inputs": {"image": {**image, "value_range": [-10, 10]}},
            "outputs": {
                "pred": {
                    **own,
                    "format": "probabilities",
                    "num_channels": len(classes),
                    "channel_def": classes,
                    "value_range": [0, 1],
                }
            },
        },
    }

"""Networks of fine-tuning cells: built, saved and loaded."""

from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file, save
from torch import nn

from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import NOT_PRETRAINED, Cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.decoders.unet import missing_decoder_error
from ssl_pipeline.evaluation.finetuning.build import compose_crop_model, compose_segmentation_model
from ssl_pipeline.evaluation.finetuning.crop_model import CropModel, EncoderCropModel
from ssl_pipeline.evaluation.finetuning.optimizer import TrainingSettings
from ssl_pipeline.evaluation.finetuning.segmentation_model import SegmentationModel
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.evaluation.runner.finetune_cells import SavedNetwork
from ssl_pipeline.io.atomic import write_bytes
from ssl_pipeline.models.encoder import Encoder

Network = TypeVar("Network", bound=nn.Module)


def build_crop_model(runner: TaskRunner, cell: Cell, method: AdaptationMethod) -> EncoderCropModel:
    """An encoder with a head of classes or a number, ready to be adapted; see
    `compose_crop_model`.
    """
    n_classes = len(runner.task.class_names)
    return compose_crop_model(_build_encoder(runner, cell), n_classes, method)


def build_segmentation_model(
    runner: TaskRunner, cell: Cell, method: AdaptationMethod, section: Finetune
) -> SegmentationModel:
    """An encoder with a decoder of voxels, ready to be adapted."""
    n_classes = len(runner.task.class_names)
    network = compose_segmentation_model(_build_encoder(runner, cell), n_classes, method, section)
    if section.decoder.start == "pretrained":
        _load_decoder(network, runner, cell)
    return network


def _load_decoder(network: SegmentationModel, runner: TaskRunner, cell: Cell) -> None:
    """Give the decoder the weights that pretraining has left for the encoder of a cell.

    Its heads stay as they are, and all of it does where the encoder was not pretrained. Raises
    UserError where the encoder was pretrained without a decoder.
    """
    if not _is_pretrained(cell):
        return
    weights = runner.context.decoder_weights(cell.initialization)
    if weights is None:
        raise missing_decoder_error(cell.initialization)
    network.decoder.load_state_dict(weights)


def training_settings(
    runner: TaskRunner, cell: Cell, section: Finetune, method: AdaptationMethod | None
) -> TrainingSettings:
    """How the network of a cell is trained."""
    seed, device = runner.context.seed + cell.seed, runner.context.device
    return TrainingSettings(
        section, method, runner.crop_size, seed, device, is_pretrained=_is_pretrained(cell)
    )


def _is_pretrained(cell: Cell) -> bool:
    return cell.initialization not in NOT_PRETRAINED


def _build_encoder(runner: TaskRunner, cell: Cell) -> Encoder:
    """The encoder that a cell starts from."""
    encoder = runner.context.encoder_factory(cell.initialization, runner.context.seed + cell.seed)
    runner.check_patch(encoder.patch)
    return encoder


def network_path(cell: Cell) -> str:
    """Path of a cell's network below the folder of its task."""
    return f"networks/{cell.name}.safetensors"


def save_network(network: CropModel | SegmentationModel, cell: Cell, out: Path) -> str:
    """Write a trained network, whose method has merged; returns its `network_path`."""
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(out / network_path(cell), save(state))
    return network_path(cell)


def load_network(network: Network, saved: SavedNetwork) -> Network:
    """An untrained network with the saved weights of its cell.

    Raises UserError where there are none.
    """
    path = saved.folder / network_path(saved.cell)
    if not path.exists():
        raise UserError(
            f"The trained network {path} is not there: set finetune.keep_networks to all, and run "
            "the stage finetune again."
        )
    encoder = network.get_submodule("encoder")
    assert isinstance(encoder, Encoder)
    saved.method.merge(encoder)
    network.load_state_dict(load_file(path))
    return network

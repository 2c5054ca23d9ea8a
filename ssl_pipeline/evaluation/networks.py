"""The networks of fine-tuning: built alike for training and for what was kept of it."""

from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file, save

from ssl_pipeline.atomic import write_bytes
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import Cell
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.plan import Plan
from ssl_pipeline.evaluation.region_network import RegionModel, RegionNetwork
from ssl_pipeline.evaluation.segmenter import Segmenter
from ssl_pipeline.models.encoder import Encoder

Network = TypeVar("Network", RegionNetwork, Segmenter)


def of_regions(plan: Plan, cell: Cell, method: AdaptationMethod) -> RegionNetwork:
    """An encoder with a head of classes or a number, ready to be adapted; see `of_voxels`."""
    encoder = _encoder(plan, cell)
    network = RegionNetwork(encoder, len(plan.task.names), method.pool(encoder.dim))
    method.apply(encoder)
    return network


def of_voxels(plan: Plan, cell: Cell, method: AdaptationMethod, section: Finetune) -> Segmenter:
    """An encoder with a decoder of voxels, ready to be adapted.

    Weights are drawn from torch's global generator, those of the head first: they are the same
    whatever the method.
    """
    encoder = _encoder(plan, cell)
    rise = section.decoder.build(encoder)
    network = Segmenter(encoder, rise, len(plan.task.names), raw_voxels=section.raw_voxels)
    method.apply(encoder)
    return network


def _encoder(plan: Plan, cell: Cell) -> Encoder:
    """What a cell starts from."""
    encoder = plan.setting.encoder_of(cell.init, plan.setting.seed + cell.seed)
    plan.check_patch(encoder.patch)
    return encoder


def name_of(cell: Cell) -> str:
    """Where a cell's network lies below the folder of its task."""
    return f"networks/{cell.name}.safetensors"


def keep(network: RegionModel | Segmenter, cell: Cell, out: Path) -> str:
    """Write a trained network, whose method has merged; returns `name_of` the cell."""
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(out / name_of(cell), save(state))
    return name_of(cell)


def kept(network: Network, method: AdaptationMethod, cell: Cell, out: Path) -> Network:
    """An untrained network with the weights that were kept of its cell.

    Raises UserError where there are none.
    """
    path = out / name_of(cell)
    if not path.exists():
        raise UserError(
            f"The trained network {path} is not there: set finetune.keep_networks, and run the "
            "stage finetune again."
        )
    method.merge(network.encoder)
    network.load_state_dict(load_file(path))
    return network

"""What a pretraining run takes: disk, memory of a rank, time of a core or a GPU."""

import math

from ssl_pipeline.flight.config import Flight
from ssl_pipeline.objectives.size import Cost
from ssl_pipeline.store.size import RAW_BYTES
from ssl_pipeline.training.config import Training
from ssl_pipeline.views.config import Views

CHECKPOINT_BYTES = 12  # a parameter: itself and AdamW's two averages
STATE_BYTES = 16  # a parameter in memory: those and its gradient
PACKED_BYTES = 18  # a parameter in the host's memory while a checkpoint is made of it
BASE_BYTES = 620e6  # a process that has imported torch, timm and lightly
CUDA_HOST_BYTES, CUDA_BYTES = 2.5e9, 0.6e9  # what CUDA itself takes of a process and of a GPU
BF16_SHARE = 0.6  # of the memory that numbers kept for the way back take in fp32
ROW_BYTES = 350  # a line of the metrics log, and its TensorBoard events once more
RECORD_BYTES = 1100  # the signs of the flight recorder in such a line
AVERAGE_BYTES = 4  # a parameter of the encoder, where its average is kept
CORE_FLOPS = 15e9  # of small layers in fp32, on a core with AVX-512
GPU_FLOPS = 100e12  # of an H100 in bf16: a tenth of what its data sheet says
READ_PAIRS = 400.0  # a second, which one thread reads and cuts: no GPU is faster than its reader


def checkpoint_bytes(cost: Cost, training: Training) -> int:
    """Bytes of one checkpoint."""
    return (CHECKPOINT_BYTES + AVERAGE_BYTES * (training.average > 0)) * cost.parameters


def log_bytes(training: Training, flight: Flight) -> float:
    """Bytes of the metrics log and the events made of it."""
    rows, records = training.steps / training.log_steps, training.steps / flight.every_steps
    return 2 * (ROW_BYTES * (rows + 1) + RECORD_BYTES * (records + 1))


def host_bytes(cost: Cost, pairs: float, gpu: bool) -> float:
    """Peak resident memory of a rank that computes `pairs` of a step's pairs."""
    fixed = BASE_BYTES + (STATE_BYTES + PACKED_BYTES) * cost.parameters
    return fixed + (CUDA_HOST_BYTES if gpu else pairs * cost.pair_bytes)


def read_bytes(pairs: float, views: Views, training: Training, flight: Flight) -> float:
    """What a rank that computes `pairs` of a step's pairs holds of blocks that were read."""
    ahead = (training.readers + 1) * pairs + 2 * training.pairs * (views.reuse > 1)
    return RAW_BYTES * math.prod(views.block_voxels) * (ahead + flight.bank)


def gpu_bytes(cost: Cost, pairs: float, training: Training) -> float:
    """Peak memory of a rank's GPU."""
    share = 1.0 if training.precision == "fp32" else BF16_SHARE
    return CUDA_BYTES + STATE_BYTES * cost.parameters + share * pairs * cost.pair_bytes


def pairs_per_s(cost: Cost, gpu: bool) -> float:
    """Pairs a second of one CPU core, or of one GPU with its reader."""
    if gpu:
        return min(READ_PAIRS, GPU_FLOPS / cost.pair_flops)
    return CORE_FLOPS / cost.pair_flops

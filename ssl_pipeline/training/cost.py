"""Cost of a pretraining run: disk, memory of a rank, time of a core or a GPU."""

import math

from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.objectives.cost import TrainingCost
from ssl_pipeline.store.cost import RAW_BYTES_PER_VOXEL
from ssl_pipeline.training.config import Training
from ssl_pipeline.views.config import Views

CHECKPOINT_BYTES = 12  # a parameter: itself and AdamW's two averages
STATE_BYTES = 16  # a parameter in memory: those and its gradient
PACKED_BYTES = 18  # a parameter in the host's memory while a checkpoint is made of it
BASE_BYTES = 620e6  # a process that has imported torch, timm and lightly
CUDA_HOST_BYTES, CUDA_BYTES = 2.5e9, 0.6e9  # what CUDA itself takes of a process and of a GPU
BF16_SHARE = 0.6  # of the memory that numbers kept for the way back take in fp32
ROW_BYTES = 350  # a line of the metrics log, and its TensorBoard events once more
SNAPSHOT_BYTES = 1100  # the metrics of a snapshot in such a line
EMA_BYTES = 4  # a parameter, where the average of what is exported is kept
TEACHER_BYTES = 4  # a parameter of the teacher, in memory and in a checkpoint
CORE_FLOPS = 15e9  # of small layers in fp32, on a core with AVX-512
GPU_FLOPS = 100e12  # of an H100 in bf16: a tenth of what its data sheet says
MAX_READ_SAMPLES_PER_S = 400.0  # that one thread reads and crops: no GPU is faster than its reader


def checkpoint_bytes(cost: TrainingCost, training: Training) -> int:
    """Bytes of one checkpoint."""
    trained = (CHECKPOINT_BYTES + EMA_BYTES * (training.ema_decay > 0)) * cost.parameter_count
    return trained + TEACHER_BYTES * cost.teacher_parameter_count


def log_bytes(training: Training, monitoring: Monitoring) -> float:
    """Bytes of the metrics log and the events made of it."""
    rows, snapshots = (
        training.steps / training.log_every,
        training.steps / monitoring.snapshot_every,
    )
    return 2 * (ROW_BYTES * (rows + 1) + SNAPSHOT_BYTES * (snapshots + 1))


def host_bytes(cost: TrainingCost, samples: float, on_gpu: bool) -> float:
    """Peak resident memory of a rank that computes `samples` of a step's batch."""
    fixed = BASE_BYTES + (STATE_BYTES + PACKED_BYTES) * cost.parameter_count
    fixed += 2.5 * TEACHER_BYTES * cost.teacher_parameter_count  # packed too
    return fixed + (CUDA_HOST_BYTES if on_gpu else samples * cost.sample_bytes)


def read_ahead_bytes(
    samples: float, views: Views, training: Training, monitoring: Monitoring
) -> float:
    """Memory of the blocks read ahead, on a rank that computes `samples` of a step's batch."""
    ahead = (training.loader_threads + 1) * samples + 2 * training.batch_size * (
        views.steps_per_read > 1
    )
    blocks = views.max_blocks * (ahead + monitoring.snapshot_samples)
    return RAW_BYTES_PER_VOXEL * math.prod(views.block_voxels) * blocks


def gpu_bytes(cost: TrainingCost, samples: float, training: Training) -> float:
    """Peak memory of a rank's GPU."""
    share = 1.0 if training.precision == "fp32" else BF16_SHARE
    fixed = CUDA_BYTES + STATE_BYTES * cost.parameter_count
    fixed += TEACHER_BYTES * cost.teacher_parameter_count
    return fixed + share * samples * cost.sample_bytes


def samples_per_s(cost: TrainingCost, on_gpu: bool) -> float:
    """Samples per second of one CPU core, or of one GPU with its reader."""
    if on_gpu:
        return min(MAX_READ_SAMPLES_PER_S, GPU_FLOPS / cost.sample_flops)
    return CORE_FLOPS / cost.sample_flops

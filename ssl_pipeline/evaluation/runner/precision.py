"""The precision of a task's fine-tuning, which all of its cells share.

`finetune.precision: auto` is what the machine computes fastest. Two measurements may differ, so the
first is written beside the cells: runs that go on, other shards, and what reads the networks obey
it. Whoever removes the file has it measured again.
"""

from pathlib import Path
from typing import Literal

from ssl_pipeline.evaluation.cells import RANDOM
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.runner.context import TaskRunner
from ssl_pipeline.io.locks import exclusive_lock
from ssl_pipeline.io.records import Record, read_record_if_whole, write_record

PRECISION_FILE, PRECISION_LOCK = "precision.json", ".precision.lock"


class PrecisionRecord(Record):
    """The precision that `auto` has become, and where it was measured."""

    format: Literal[1] = 1
    precision: Literal["bf16", "fp16", "fp32"]
    device: Literal["cpu", "cuda"]


def decide_precision(finetune: Finetune, runner: TaskRunner) -> Finetune:
    """The section with the precision of the task's folder, measured where there is none yet."""
    folder = runner.context.out
    if finetune.precision == "auto":
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(folder / PRECISION_LOCK):  # shards may begin at once
            if read_record_if_whole(PrecisionRecord, folder / PRECISION_FILE) is None:
                write_record(folder / PRECISION_FILE, _measure(finetune, runner))
    return with_recorded_precision(finetune, folder)


def with_recorded_precision(finetune: Finetune, folder: Path) -> Finetune:
    """The section with the precision that was decided in the folder of a task's fine-tuning.

    Unchanged where it names one itself, or nothing was decided.
    """
    record = read_record_if_whole(PrecisionRecord, folder / PRECISION_FILE)
    if finetune.precision != "auto" or record is None:
        return finetune
    return finetune.model_copy(update={"precision": record.precision})


def _measure(finetune: Finetune, runner: TaskRunner) -> PrecisionRecord:
    import torch

    from ssl_pipeline.training.compute import fastest_precision

    device, convolves = torch.device(runner.context.device).type, has_convolutions(finetune, runner)
    precision = fastest_precision(device, torch.get_num_threads(), convolves)
    return PrecisionRecord.model_validate({"precision": precision, "device": device})


def has_convolutions(finetune: Finetune, runner: TaskRunner) -> bool:
    """Whether the task's networks convolve: with kernels that overlap, as no patch embedding's."""
    from torch import nn

    from ssl_pipeline.evaluation.adaptation.full import Full
    from ssl_pipeline.evaluation.finetuning.optimizer import fixed_seed

    context = runner.context
    with fixed_seed(context.seed, context.device):
        encoder = context.encoder_factory(RANDOM, context.seed)
        network = runner.task.build_network(encoder, Full(), finetune)
    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv3d)]
    return any(each.kernel_size > each.stride for each in convolutions)

"""Fine-tune the encoder on one task, beside random weights and pixels."""

from pathlib import Path

from ssl_pipeline.evaluation.finetune import run_finetune
from stages import judgement
from stages.contract import Made
from stages.study import Study

READS = ("seed", "tasks.{task}", "evaluate", "finetune", "model", "views.crop_voxels")
AFTER = ("preprocess", "pretrain")
VERSION = 1
MAKES = judgement.MAKES


def inputs(study: Study, task: str) -> dict[str, str]:
    """Stored volumes, encoder, labels."""
    return judgement.inputs(study, task)


def run(study: Study, out: Path, task: str) -> Made:
    """Compute the cells that are not there yet, and the table of all."""
    setting = judgement.setting(study, out, task)
    return judgement.made(out, run_finetune(study.tasks[task], study.finetune, setting))

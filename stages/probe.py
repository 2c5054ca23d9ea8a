"""Judge the frozen encoder on one task, beside random weights and pixels."""

from dataclasses import replace
from pathlib import Path

from ssl_pipeline.evaluation.cells import Share
from ssl_pipeline.evaluation.probe import run_probe
from ssl_pipeline.evaluation.size import probing
from stages import judgement
from stages.contract import Made
from stages.need import Known, Need, Place
from stages.study import Study

READS = ("seed", "tasks.{task}", "evaluate", "probe", "model", "views.crop_voxels")
AFTER = ("preprocess", "pretrain")
VERSION = 4
MAKES = judgement.MAKES


def inputs(study: Study, task: str) -> dict[str, str]:
    """Stored volumes, encoder, labels."""
    return judgement.inputs(study, task)


def need(study: Study, known: Known, on: Place, task: str) -> Need:
    """Every cell of the task."""
    config, of = study.tasks[task], judgement.judged(known, study, task)
    crop = config.crop(study.views.crop_voxels)
    cost = probing(config, study.probe_of(task), study.evaluate, study.model, crop, of)
    return judgement.need_of(cost, known, on.gpus > 0)


def run(study: Study, out: Path, task: str) -> Made:
    """Compute the cells that are not there yet, and the table of all."""
    setting = judgement.setting(study, "probe", out, task)
    return judgement.made(out, run_probe(study.tasks[task], study.probe_of(task), setting))


def run_share(study: Study, out: Path, share: Share, task: str) -> None:
    """Compute a share of the cells that are not there yet."""
    setting = judgement.setting(study, "probe", out, task)
    run_probe(study.tasks[task], study.probe_of(task), replace(setting, share=share))

"""Judge a task again on scans that are taken worse: how do encoders and methods hold?"""

from pathlib import Path

from ssl_pipeline.evaluation.judges import Tried
from ssl_pipeline.evaluation.looks import LOOKS, read_looks
from ssl_pipeline.evaluation.robustness import run_robustness
from ssl_pipeline.evaluation.size import worsening
from ssl_pipeline.report.numerals import count
from stages import judgement
from stages.contract import Made, manifest_hash
from stages.need import Known, Need, Place
from stages.study import Study

READS = (
    "seed",
    "tasks.{task}",
    "evaluate",
    "probe",
    "finetune",
    "robustness",
    "model",
    "views.crop_voxels",
    "preprocess",
)
AFTER = ("preprocess", "pretrain")
VERSION = 2
MAKES = ("results.json", LOOKS, "conditions/*.json", "labels/*.npy")


def inputs(study: Study, task: str) -> dict[str, str]:
    """What the judgements read, and what fine-tuning made, whose networks are tried."""
    return {
        **judgement.inputs(study, task),
        f"finetune {task}": manifest_hash(study, "finetune", task=task),
    }


def need(study: Study, known: Known, on: Place, task: str) -> Need:
    """Every corruption at every severity."""
    config, of = study.tasks[task], judgement.judged(known, study, task)
    crop = config.crop(study.views.crop_voxels)
    assert study.robustness
    seen = [s.modality for s in known.scans if not config.roots or s.root in config.roots]
    conditions = len(study.robustness.conditions(set(seen)))
    sections = (study.probe_of(task), study.finetune_of(task), study.evaluate)
    cost = worsening(config, conditions, *sections, study.model, crop, of)
    return judgement.need_of(cost, known, on.gpus > 0)


def run(study: Study, out: Path, task: str) -> Made:
    """Compute the conditions that are not there yet, and the table of all."""
    assert study.robustness
    tried = Tried(
        robustness=study.robustness,
        probe=study.probe_of(task),
        finetune=study.finetune_of(task),
        preprocess=study.preprocess,
        networks=study.stage_folder("finetune", {"task": task}),
    )
    setting = judgement.setting(study, "robustness", out, task)
    results = run_robustness(study.tasks[task], tried, setting)
    rows = count(len(results["rows"]), "row")
    looks = {"looks": read_looks(out)}
    return Made([out / "results.json"], f"{results['task']}: {rows} on worse scans", looks)

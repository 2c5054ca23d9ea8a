"""Put all trials of an ablation into one table: which objective is worth its operations.

The trials are runs of other stages, which `snakemake ablate` sees to; this one only reads them.
"""

from pathlib import Path
from typing import Any

from ssl_pipeline.atomic import read_json, write_json, write_text
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.ablation import compare
from ssl_pipeline.evaluation.cells import RANDOM
from ssl_pipeline.report.ablation import ablation
from ssl_pipeline.report.numerals import count
from stages.contract import Made, manifest_hash
from stages.need import RECORDS, Known, Need, Place, assumed, counted
from stages.parts import of_trial
from stages.study import Study
from stages.trials import BUDGET, refuse_none, trial_of, trials

RESULTS, TABLE = "results.json", "ablation.md"
READS = ("name", "seed", "tasks", "ablate", "evaluate.confidence")
AFTER = ("budget",)
VERSION = 3
MAKES = (RESULTS, TABLE)


def inputs(study: Study) -> dict[str, str]:
    """What every trial made. Raises UserError where one is not done, or there is none."""
    refuse_none(study)
    parts = [part for trial in trials(study) for part in of_trial(trial)]
    missing = [part.name for part in parts if not part.done]
    if missing:
        raise UserError(
            f"Of {count(len(parts), 'part')} of the trials {len(missing)} are not done, such as "
            f"{missing[0]}: `snakemake --profile local ablate --config study=STUDY` does them all."
        )
    hashes = {p.name: manifest_hash(p.study, p.stage, **p.wildcards) for p in parts}
    return {"budget": manifest_hash(study, "budget"), **hashes}


def need(study: Study, known: Known, on: Place) -> Need:
    """Tables that are read and drawn from again."""
    return Need(
        disk=assumed(1e6, "a table of all trials"),
        files=counted(RECORDS + len(MAKES), "two tables"),
        memory=assumed(1e9, "predictions of all trials of a task"),
        seconds=assumed(60.0, "a minute of statistics"),
    )


def run(study: Study, out: Path) -> Made:
    """Write the comparison, and the table that people read."""
    assert study.ablate
    budget = read_json(study.stage_folder("budget", {}) / BUDGET)
    tables = [
        {"name": task, "stage": stage, **_compared(study, stage, task)}
        for task, config in study.tasks.items()
        for stage in config.judged_by
    ]
    results = {
        "study": study.name,
        "flops": budget["flops"],
        "arms": [_arm(study, name, budget["arms"][name]) for name in study.ablate.arms],
        "tables": tables,
    }
    write_json(out / RESULTS, results)
    text = ablation(results)
    write_text(out / TABLE, text)
    return Made([out / RESULTS, out / TABLE], f"the table is {out / TABLE}")


def _compared(study: Study, stage: str, task: str) -> dict[str, Any]:
    assert study.ablate
    folders = {
        arm: [
            trial_of(study, f"{arm}-{seed}").stage_folder(stage, {"task": task})
            for seed in range(study.ablate.seeds)
        ]
        for arm in (*study.ablate.arms, RANDOM)
    }
    return compare(folders, confidence=study.evaluate.confidence, seed=study.seed)


def _arm(study: Study, name: str, budget: dict[str, int]) -> dict[str, Any]:
    """What an arm cost, and how its runs fared."""
    assert study.ablate
    runs = [trial_of(study, f"{name}-{seed}") for seed in range(study.ablate.seeds)]
    folders = [run.stage_folder("pretrain", {}) for run in runs]
    records = [read_json(folder / "provenance.json") for folder in folders]
    return {
        "name": name,
        **budget,
        "seconds": [record["wall_s"] for record in records],
        "verdicts": [record["trained"]["verdict"] for record in records],
    }

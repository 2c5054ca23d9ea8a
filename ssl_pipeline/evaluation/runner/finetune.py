"""Fine-tuning of a task: a head is trained, and of the encoder what each method adapts.

Every initialization gets the same heads, steps, batches and crops, and so does every method, beside
baselines: of crops, pixels + PCA with the linear probe; of voxels, a linear model of
neighbourhoods.
"""

from collections.abc import Iterator

from ssl_pipeline.evaluation.adaptation import AdaptationMethod
from ssl_pipeline.evaluation.cells import (
    BASELINE_METHOD,
    BASELINES,
    EXTERNAL,
    NOT_PRETRAINED,
    PIXELS,
    Cell,
)
from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.records import Results
from ssl_pipeline.evaluation.runner.context import EvaluationContext, TaskRunner, run_cells
from ssl_pipeline.evaluation.runner.precision import decide_precision
from ssl_pipeline.evaluation.tasks.task import Task

__all__ = ["EvaluationContext", "cell_section", "model_cell", "run_finetune"]


def run_finetune(task: Task, finetune: Finetune, context: EvaluationContext) -> Results | None:
    """Fine-tune a task and write `cells/`, `results.json` and `costs.json` below `context.out`.

    A segmentation also writes `predictions/CELL/SCAN.nii.gz`. Returns the results, a shard none;
    existing cells with the same key are not computed again. Raises UserError for a task that cannot
    be compared by subject.
    """
    runner = TaskRunner(task, context)
    task_cells = task.finetune_cells(runner)
    if PIXELS in context.initializations:
        baselines = (PIXELS, *task.finetune_baselines(finetune))
        runner = runner.with_baselines({name: task_cells.baseline_hash(name) for name in baselines})
    finetune = decide_precision(finetune, runner)
    cells = list(_cells(runner, finetune))
    notes = task_cells.notes(finetune, [cell for cell, _ in cells])
    return run_cells(runner, cells, task_cells.compute, "Fine-tuning", notes)


def _cells(runner: TaskRunner, finetune: Finetune) -> Iterator[tuple[Cell, Finetune]]:
    evaluate = runner.context.evaluate
    budgets = _budgets(runner, finetune)
    for method in (*runner.task.supported_methods(finetune), None):  # baselines have no method
        for start in runner.context.initializations:
            seeds = 1 if start == EXTERNAL else finetune.seeds or evaluate.seeds
            for seed in range(seeds):
                for budget in budgets[-1:] if start == EXTERNAL else budgets:
                    if (start in BASELINES) == (method is None):
                        cell = Cell(method.name if method else BASELINE_METHOD, start, budget, seed)
                        yield cell, cell_section(runner, finetune, cell, method)


def cell_section(
    runner: TaskRunner, finetune: Finetune, cell: Cell, method: AdaptationMethod | None
) -> Finetune:
    """The section that determines a cell of fine-tuning; a baseline has no method."""
    labelled = cell.subjects or len(runner.subject_split.train_subjects)
    section = runner.task.finetune_section(finetune, labelled)
    if method is None:
        return section.for_methods()
    is_kept = cell == model_cell(runner, finetune) or (
        finetune.keep_networks == "all" and cell.subjects == _budgets(runner, finetune)[-1]
    )
    return section.for_methods(method, keeps_network=is_kept)


def model_cell(runner: TaskRunner, finetune: Finetune) -> Cell | None:
    """The cell whose network is the task's model; None where there is none."""
    initializations = runner.context.initializations
    if not runner.task.leaves_model(finetune, initializations):
        return None
    encoder = next(init for init in initializations if init not in NOT_PRETRAINED)
    method = runner.task.supported_methods(finetune)[0]
    return Cell(method.name, encoder, _budgets(runner, finetune)[-1], seed=0)


def _budgets(runner: TaskRunner, finetune: Finetune) -> tuple[int, ...]:
    return runner.budgets(finetune.subjects or runner.context.evaluate.subjects)

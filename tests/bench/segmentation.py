"""`make bench-segmentation`: our network from random weights beside real nnU-Net.

Both learn a segmentation from the same few subjects of a study and are scored on its validation
subjects by the same code: after as many crops, and ours also after the seconds of the processor
that nnU-Net took for them. Then training steps and the prediction of a CT take turns with those of
peers. What is complete is not done again; `build/bench/segmentation.json` gets the rows.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from ssl_pipeline.io.atomic import sha256_json, write_json
from ssl_pipeline.types import Triple, triple
from tests.bench import nnunet
from tests.bench.segmentation_task import Budget, SegmentationComparison, prepare_study
from tests.bench.table import BenchmarkRow, write_table

STUDY, TASK = Path("workflows/studies/openkbp_hippocampus.yaml"), "parts"
OUT = Path("build/bench")
CROP, CT = (32, 48, 32), (300, 512, 512)  # (z, y, x), voxels
TINY = Budget(2, 2, 2, CROP, max_scored_scans=2)


def main() -> None:
    import torch

    from tests.bench import segmentation_speed

    words = _parse()
    torch.set_num_threads(1)
    budget = Budget(words.subjects, words.steps, 2, CROP, words.max_scored_scans)
    if words.tiny:
        budget, words.ct_voxels = TINY, CROP
    key = sha256_json([str(words.study), words.task, repr(budget)])[:8]
    out = words.out / "segmentation" / key
    study = prepare_study(words.study, words.task, budget, words.out / "segmentation")
    rows = _dice_rows(SegmentationComparison(study, words.task, budget), out)
    rows += segmentation_speed.step_rows(CROP, nnunet.ENVIRONMENT)
    rows += segmentation_speed.prediction_rows(CROP, words.ct_voxels, nnunet.ENVIRONMENT)
    write_table(rows, words.out / "segmentation.json")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--task", default=TASK, help="a segmentation task of the study")
    parser.add_argument("--subjects", type=int, default=5, help="labelled training subjects")
    parser.add_argument("--steps", type=int, default=255, help="of ours, of two crops each")
    parser.add_argument("--max-scored-scans", type=int, help="score the first ones alone")
    parser.add_argument("--ct-voxels", type=_sizes, default=CT, help="of a CT to predict: 96,96,64")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--tiny", action="store_true", help="a minute, to see that all runs")
    return parser.parse_args()


def _sizes(text: str) -> Triple:
    """Three numbers with commas between them, (z, y, x)."""
    return triple(map(int, text.split(",")))


def _dice_rows(task: SegmentationComparison, out: Path) -> list[BenchmarkRow]:
    """Mean Dice after equal samples, and after equal seconds."""
    theirs = _once(out / "nnunet.json", lambda: _run_nnunet(task, out))
    ours = _once(out / "ours.json", lambda: _run_ours(task, task.budget.steps))
    steps = max(1, round(task.budget.steps * theirs["seconds"] / ours["seconds"]))
    longer = _once(out / "ours-longer.json", lambda: _run_ours(task, steps))
    where = f"{task.task.title}, mean Dice, {task.budget.subjects} labelled subjects"
    peer = f"nnU-Net, ResEnc M: {theirs['dice']:.3f} ({theirs['seconds']:.0f} s)"
    return [
        BenchmarkRow(
            f"{where}, {what}",
            f"{found['dice']:.3f} ({found['seconds']:.0f} s)",
            peer,
            found["dice"] / theirs["dice"] if theirs["dice"] else None,
            1.0,
        )
        for what, found in (
            (f"{task.budget.samples} crops", ours),
            (f"equal seconds, {steps} steps", longer),
        )
    ]


def _run_ours(task: SegmentationComparison, steps: int) -> dict[str, float]:
    network, seconds = task.train(steps)
    return {"dice": task.mean_dice(task.predict(network)), "seconds": seconds, "steps": steps}


def _run_nnunet(task: SegmentationComparison, out: Path) -> dict[str, float]:
    peer = nnunet.NnUNet(out)
    peer.write_dataset(task)
    plan, seconds = peer.plan(), peer.train(task.budget.samples)
    dice = task.mean_dice(peer.predict(task.scored_entries))
    return {"dice": dice, "seconds": seconds, "batch_size": plan["batch_size"]}


def _once(path: Path, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What a file holds, or what is computed and written to it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, compute())
    return json.loads(path.read_text())


if __name__ == "__main__":
    main()

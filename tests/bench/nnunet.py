"""Real nnU-Net beside ours: a data set in its raw format, its own plans, training and prediction.

It lives in an environment of its own (`make nnunet-env`), for its pins are not the project's, and
is called by its own commands. Every step that has left its result is not done again.
"""

import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ssl_pipeline.store.catalog import Entry
from tests.bench.segmentation_task import SegmentationComparison

ENVIRONMENT = Path(".venv-nnunet")
DATASET_ID, DATASET = "501", "Dataset501_Task"
PLANNER, PLANS = "nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans"
CONFIGURATION, TRAINER, FOLD = "3d_fullres", "BudgetTrainer", "all"
CHANNELS = {"CT": "CT", "MR": "MRI"}  # by which nnU-Net chooses how values are normalized


@dataclass(frozen=True)
class NnUNet:
    """nnU-Net's three folders below `work`, and its commands."""

    work: Path
    environment: Path = ENVIRONMENT

    @property
    def raw(self) -> Path:
        return self.work / "raw" / DATASET

    @property
    def model(self) -> Path:
        """Where training leaves the model."""
        return self.work / "results" / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"

    def write_dataset(self, task: SegmentationComparison) -> None:
        """Labelled scans as `imagesTr` and `labelsTr`, and scored ones as `imagesTs`.

        Scored scans are in no split: nnU-Net trains on all that it is given, as ours does, and
        neither its plans nor its training know the others.
        """
        for entry in task.labelled_entries:
            save(task.image(entry), self.raw / "imagesTr" / f"{entry.id}_0000.nii.gz")
            save(task.label(entry), self.raw / "labelsTr" / f"{entry.id}.nii.gz")
        for entry in task.scored_entries:
            save(task.image(entry), self.raw / "imagesTs" / f"{entry.id}_0000.nii.gz")
        names = {name: number for number, name in enumerate(task.task.class_names, start=1)}
        content = {
            "channel_names": {"0": CHANNELS[task.labelled_entries[0].modality]},
            "labels": {"background": 0, **names},
            "numTraining": len(task.labelled_entries),
            "file_ending": ".nii.gz",
        }
        (self.raw / "dataset.json").write_text(json.dumps(content, indent=2))

    def plan(self) -> dict:
        """The configuration that nnU-Net plans for the data set; it preprocesses it, too."""
        plans = self.work / "preprocessed" / DATASET / f"{PLANS}.json"
        done = plans.parent / "preprocessed"
        if not done.exists():
            words = ["-d", DATASET_ID, "-pl", PLANNER, "-c", CONFIGURATION]
            self.run("nnUNetv2_plan_and_preprocess", *words, "-np", "1", "-npfp", "1")
            done.touch()
        return json.loads(plans.read_text())["configurations"][CONFIGURATION]

    def train(self, samples: int) -> float:
        """Train on so many crops, or a few more; returns the seconds of the processor."""
        folder = self.model / f"fold_{FOLD}"
        if not (folder / "checkpoint_final.pth").exists():
            words = [DATASET_ID, CONFIGURATION, FOLD, "-tr", TRAINER, "-p", PLANS]
            iterations = -(-samples // self.plan()["batch_size"])
            words += ["-device", "cpu", *(["--c"] if folder.exists() else [])]
            settings = {"BENCH_ITERATIONS": str(iterations), "nnUNet_n_proc_DA": "0"}
            self.run("nnUNetv2_train", *words, **settings)
        return sum(json.loads((folder / "seconds.json").read_text()))

    def predict(self, entries: Iterable[Entry]) -> dict[str, NDArray[np.uint8]]:
        """Classes (x, y, z) of scans on their own grid, by their names, as nnU-Net predicts."""
        out = self.work / "predictions"
        words = ["-i", str(self.raw / "imagesTs"), "-o", str(out), "-d", DATASET_ID]
        words += ["-c", CONFIGURATION, "-f", FOLD, "-tr", TRAINER, "-p", PLANS]
        words += ["-device", "cpu", "-npp", "1", "-nps", "1", "--continue_prediction"]
        self.run("nnUNetv2_predict", *words, BENCH_ITERATIONS="1")
        found = {e.id: nib.load(out / f"{e.id}.nii.gz") for e in entries}
        return {name: np.asarray(image.dataobj).astype(np.uint8) for name, image in found.items()}

    def run(self, command: str, *words: str, **variables: str) -> None:
        """One of nnU-Net's commands, on one thread; what it prints goes to `log.txt`."""
        folders = ("raw", "preprocessed", "results")
        env = {
            **os.environ,
            **{f"nnUNet_{name}": str((self.work / name).resolve()) for name in folders},
            "nnUNet_extTrainer": str(Path(__file__).parent / "nnunet_trainers"),
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        with open(self.work / "log.txt", "a") as log:
            done = subprocess.run(
                [self.environment / "bin" / command, *words], env=env, stdout=log, stderr=log
            )
        if done.returncode:
            raise SystemExit(f"{command} failed: see the end of {self.work / 'log.txt'}.")


def save(image: nib.Nifti1Image, path: Path) -> None:
    """Write an image into a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)

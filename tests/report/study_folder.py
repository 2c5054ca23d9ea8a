"""Small study folders as the stages leave them: real volumes, and synthetic results."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ssl_pipeline.evaluation.cells import PIXELS
from ssl_pipeline.evaluation.records import (
    COSTS_FILE,
    RESULTS_FILE,
    CellCost,
    Comparison,
    Costs,
    Results,
    ScoreRow,
    SubgroupScores,
)
from ssl_pipeline.evaluation.statistics.estimates import Estimate
from ssl_pipeline.evaluation.tasks import TaskConfig
from ssl_pipeline.evaluation.tasks.crop_classification import CropClassification
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation
from ssl_pipeline.export.bundle import save_bundle
from ssl_pipeline.io.records import write_record
from ssl_pipeline.models import ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.provenance import Provenance
from ssl_pipeline.report.data.report_data import ReportData
from ssl_pipeline.report.html_report import render_report
from ssl_pipeline.report.markdown_report import render_markdown_report
from ssl_pipeline.report.sections.task import task_sections
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training import snapshots
from ssl_pipeline.training.run_record import RUN_RECORD, RunRecord
from ssl_pipeline.volumes.pseudonyms import PseudonymStore
from stages.core.stage import load_stages

ANATOMY = Path(nib.__file__).parent / "tests" / "data" / "anatomical.nii"
CLASSES = {1: "left", 2: "right"}
CROPS = CropClassification(title="Side of a crop", classes=CLASSES, label="sides")
VOXELS = Segmentation(title="Sides in voxels", classes=CLASSES, label="sides")
STAGES = {CropClassification: ("probe", "finetune"), Segmentation: ("finetune",)}
STAGES_IN_ORDER = ("download", "inventory", "preprocess", "pretrain", "probe", "finetune")
RUN = RunRecord(
    study="small",
    objective="hybrid",
    steps=100,
    volumes=3,
    subjects=3,
    modalities=("MR",),
    ranks=1,
    device="cpu",
    precision="fp32",
    fused_attention=True,
    threads=1,
    diagnosis="data_bound",
    folder="runs/abc",
    salt="",
)
INITS = ("pretrained", "random", PIXELS)

Interval = tuple[float, float | None, float | None]  # mean, low, high
Gaps = dict[tuple[str, str], Interval]  # by method and initialization


@dataclass
class StudyFolder:
    """A study's folder, filled bit by bit."""

    folder: Path
    title: str = "A study"
    tasks: dict[str, TaskConfig] = field(default_factory=dict)

    @property
    def report_data(self) -> ReportData:
        """What the report is made from."""
        config = {"name": "small", "seed": 7}
        encoder = self.folder / "pretrain" / "encoder"
        return ReportData(
            self.folder,
            "small",
            self.title,
            self.tasks,
            config,
            self.label_file,
            encoder,
            tuple(load_stages()),
        )

    def label_file(self, scan: str, name: str) -> Path:
        """The file of a scan's label."""
        return PseudonymStore(self.folder.parent / "private", "study", Path()).label_path(
            scan, name
        )

    def write_json(self, path: str, content: Any) -> Path:
        """Put a file of JSON below the folder."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content))
        return target

    def write_results(self, task: str, stage: str, results: Results) -> None:
        """Put a task's results there."""
        write_record(self.folder / stage / task / RESULTS_FILE, results)

    def write_costs(self, task: str, stage: str, *cells: CellCost) -> None:
        """Put the costs of a task's cells there."""
        write_record(self.folder / stage / task / COSTS_FILE, Costs(cells=cells))

    def write_provenance(self, stage: str, **more: Any) -> None:
        """Put a stage's record there."""
        record = Provenance(stage, {}, "c0ffee" * 10, 7, self.folder).finish(**more)
        write_record(self.folder / stage / "provenance.json", record)


def render_page(study: StudyFolder) -> str:
    """The HTML report."""
    data = study.report_data
    return render_report(data, task_sections(data))


def render_tables(study: StudyFolder) -> str:
    """The report's tables as Markdown."""
    data = study.report_data
    return render_markdown_report(data, task_sections(data))


def results(
    gaps: Gaps,
    *,
    method: str = "linear",
    task: TaskConfig = CROPS,
    test: int = 12,
    subjects: tuple[int, ...] = (2, 0),
) -> Results:
    """Results; `gaps` has, by method and initialization, pretrained less it, with the interval."""
    has_intervals = all(low is not None for _, low, _ in gaps.values())
    rows = tuple(
        _score_row(method, init, n, gaps, has_intervals) for n in subjects for init in INITS
    )
    return Results(
        task=task.title,
        kind=task.kind,
        metric=task.METRIC,
        split="test",
        confidence=0.95,
        n_train_subjects=20,
        n_test_subjects=test,
        n_seeds=3,
        classes=task.class_names,
        initializations=INITS,
        rows=rows,
        differences=tuple(
            _comparison(method, against, number, gaps[method, against], has_intervals)
            for number in subjects
            for against in INITS[1:]
        ),
        subgroups=tuple(
            SubgroupScores(attribute="site", value=value, n_test_subjects=number, rows=rows)
            for value, number in (("north", test - 2), ("south", 2))
        ),
        gaps=(),
        failed=(),
        notes=("Said by the summary.",),
        warning="",
    )


def _score_row(method: str, init: str, subjects: int, gaps: Gaps, has_intervals: bool) -> ScoreRow:
    mean = 0.9 if init == "pretrained" else 0.9 - gaps[method, init][0]
    return ScoreRow(
        method=method,
        initialization=init,
        subjects=subjects,
        mean=mean,
        low=mean - 0.03 if has_intervals else None,
        high=mean + 0.02 if has_intervals else None,
        sd_seeds=0.02,
        per_seed=(mean - 0.02, mean, mean + 0.02),
        per_class={"left": mean, "right": None},
        other_metrics={
            "auc": Estimate(mean=0.95, low=0.91, high=0.97),
            "calibration_error": Estimate(mean=0.12, low=None, high=None),
        },
    )


def _comparison(
    method: str, against: str, subjects: int, gap: Interval, has_intervals: bool
) -> Comparison:
    mean, low, high = gap
    return Comparison(
        method=method,
        initialization="pretrained",
        subjects=subjects,
        against=against,
        mean=mean,
        low=low,
        high=high,
        p=0.001 if has_intervals else None,
        other_metrics={},
    )


def gaps(random: Interval, pixels: Interval = (0.2, 0.1, 0.3), method: str = "linear") -> Gaps:
    """Differences of pretrained to the two others."""
    return {(method, "random"): random, (method, PIXELS): pixels}


def write_pretraining(study: StudyFolder) -> None:
    """Metrics of a run, pictures, and a bundle with a random encoder."""
    pretrain, rng = study.folder / "pretrain", np.random.default_rng(0)
    row = {"loss": 2.0, "reconstruction": 0.2, "learning_rate": 1e-3, "samples_per_s": 50.0}
    metrics = study.write_json("pretrain/runs/abc/metrics.jsonl", {})
    lines = [
        json.dumps({"step": step, **row, "loss": 2 - step / 100}) for step in range(0, 100, 10)
    ]
    metrics.write_text("\n".join(lines) + "\n")
    write_record(pretrain / RUN_RECORD, RUN)
    crops = rng.normal(size=(2, 16, 16)).astype(np.float32)
    masked = crops.copy()
    masked[:, :8] = np.nan
    moment = {"input": crops, "masked": masked, "reconstruction": crops, "attention": crops**2}
    for step in (50, 90):
        snapshots.save_images(pretrain / "runs" / "abc", step, moment)
    scan = Catalog.read(study.folder / "preprocess" / "catalog.parquet").entries[0].id
    pca = rng.random((1, 16, 24, 3)).astype(np.float32)
    pca[:, :8, :8] = np.nan
    picture = {
        "slice": rng.normal(size=(1, 16, 24)).astype(np.float32),
        "pca": pca,
        "ids": np.array([scan]),
    }
    snapshots.write_arrays(pretrain / "feature_pca.npz", picture)
    model = ViT(preset="tiny")
    encoder = random_encoder(model, 0)
    save_bundle(pretrain / "encoder", encoder, model, Preprocess(), (16, 16, 16), {"steps": 0})

"""Layout of a study's output: every path and file name that stages and commands share.

    STAGE/[TASK/]            what a stage wrote, with its records
    trials/TRIAL/STAGE/...   the same for the trials of an ablation or of scaling
    calibrate/               what pretraining reaches on each profile
    next/                    which scans to label next, and embeddings of scans
    drift/                   whether new scans are unlike those that the champion knows
    logs/RUN.log             the log of a run, such as `probe-organ@hybrid-0`
    jobs/RUN/                scripts, logs and record of its cluster jobs
    study.json               the name of the study that the folder belongs to
    ../private/              salt and paths of origin, beside the output

Names of files that the library writes are constants of the module that writes them.
"""

from pathlib import Path
from typing import Protocol

from ssl_pipeline.io import lease
from ssl_pipeline.preprocess.plan import PLAN_FILE
from ssl_pipeline.provenance import PROVENANCE_FILE
from ssl_pipeline.store.catalog import CATALOG_FILE
from ssl_pipeline.training.metrics_log import METRICS_FILE
from ssl_pipeline.volumes.inventory import INVENTORY_FILE
from ssl_pipeline.volumes.label_versions import VERSIONS_FILE
from ssl_pipeline.volumes.pseudonyms import PseudonymStore

# Files in the folder of every stage.
COMPLETION_RECORD, MANIFEST, LOCK = ".done.json", "manifest.json", ".lock"
WITHDRAWN_MANIFEST = ".withdrawn.json"  # of a stage that must run again
ELAPSED_RECORD = ".elapsed.json"
RECORD_FILES = (
    *(COMPLETION_RECORD, MANIFEST, WITHDRAWN_MANIFEST, ELAPSED_RECORD),
    *(PROVENANCE_FILE, LOCK, lease.LEASE_FILE),
)
# Beside the folders of the stages.
STUDY_RECORD = "study.json"
TRIALS_FOLDER, LOGS_FOLDER, JOBS_FOLDER, PRIVATE_FOLDER = "trials", "logs", "jobs", "private"
# In the folder of `preprocess`.
VOLUMES_FOLDER = "volumes"
# In that of `flop_budget`.
BUDGET_FILE = "steps.json"
# In that of `pretrain`.
ENCODER_FOLDER, RUNS_FOLDER = "encoder", "runs"
RUN_NAME_DIGITS = 12  # hexadecimal, of a hash
RUN_NAME_PATTERN = "[0-9a-f]" * RUN_NAME_DIGITS
CHECKPOINTS_FOLDER, REPLAY_FILE = "checkpoints", "replay.json"  # of a run
MEASURED_FOLDER = "measured"  # in that of a run or of calibrations, while a pace is measured
# In those of evaluations.
LABEL_MAPS_FOLDER = "labels"
MODEL_FOLDER = "model"  # of fine-tuning
# Of the command `next`, here and in the private folder.
NEXT_FOLDER, WORK_LIST = "next", "work_list.csv"
# Of the command `drift`.
DRIFT_FOLDER = "drift"
DRIFT_TABLE, DRIFT_SCANS, DRIFT_PAGE = "drift.csv", "scans.csv", "drift.html"
# Of the command `calibrate`.
CALIBRATE_FOLDER = "calibrate"
# In those of `ablate`, `scaling` and `report`.
ABLATION_TABLE, SCALING_TABLE = "ablation.md", "scaling.md"
REPORT_PAGE, REPORT_TABLES = "report.html", "report.md"


class OutputFolders(Protocol):
    """A study, as far as paths go."""

    @property
    def name(self) -> str:
        """The study's name."""

    @property
    def folder(self) -> Path:
        """The output folder."""

    @property
    def pseudonyms(self) -> PseudonymStore:
        """The pseudonyms of scans, in the private folder."""

    def stage_folder(self, stage: str, wildcards: dict[str, str]) -> Path:
        """The folder of a run of a stage."""


def private_folder(study: OutputFolders) -> Path:
    """The folder of salt and paths of origin, where the study names no other."""
    return study.folder.parent / PRIVATE_FOLDER


def study_record(study: OutputFolders) -> Path:
    """The record of the study that the output folder belongs to."""
    return study.folder / STUDY_RECORD


def log_file(study: OutputFolders, run_name: str) -> Path:
    """The log of a run of a stage."""
    return study.folder / LOGS_FOLDER / f"{run_name}.log"


def progress_file(study: OutputFolders, run_name: str) -> Path:
    """The progress record of a run of a stage, wherever it runs."""
    return study.folder / LOGS_FOLDER / f"{run_name}.progress.json"


def job_folder(study: OutputFolders, run_name: str) -> Path:
    """The folder of the cluster jobs of a run."""
    return study.folder / JOBS_FOLDER / run_name


def inventory_table(study: OutputFolders) -> Path:
    """The table of all scans."""
    return study.stage_folder("inventory", {}) / INVENTORY_FILE


def plan_file(study: OutputFolders) -> Path:
    """The spacings that the scans suggest."""
    return study.stage_folder("inventory", {}) / PLAN_FILE


def catalog_table(study: OutputFolders) -> Path:
    """The table of all stored volumes."""
    return study.stage_folder("preprocess", {}) / CATALOG_FILE


def volumes_folder(study: OutputFolders) -> Path:
    """The folder of all stored volumes."""
    return study.stage_folder("preprocess", {}) / VOLUMES_FOLDER


def budget_table(study: OutputFolders) -> Path:
    """The table of the steps of each arm of an ablation."""
    return study.stage_folder("flop_budget", {}) / BUDGET_FILE


def cohort_file(study: OutputFolders, cohort: int, settings_hash: str) -> Path:
    """The frozen cohort; trials share it, so that all train on the same volumes."""
    name = f"cohort-{cohort}-{settings_hash[:8]}.json"
    return study.folder / "pretrain" / name


def initial_weights_file(study: OutputFolders, cohort: int) -> Path:
    """Which weights an alias in `init_from` meant when the cohort was frozen."""
    return study.folder / "pretrain" / f"initial-weights-{cohort}.json"


def metrics_log(run_folder: Path) -> Path:
    """The metrics of a pretraining run."""
    return run_folder / METRICS_FILE


def checkpoints_folder(run_folder: Path) -> Path:
    """The checkpoints of a pretraining run."""
    return run_folder / CHECKPOINTS_FOLDER


def calibrate_folder(study: OutputFolders) -> Path:
    """The folder of calibrations."""
    return study.folder / CALIBRATE_FOLDER


def calibration_file(study: OutputFolders, profile: str) -> Path:
    """What pretraining reaches on a profile."""
    return calibrate_folder(study) / f"{profile}.json"


def replay_record(run_folder: Path) -> Path:
    """Which subjects of earlier cohorts a pretraining run replays."""
    return run_folder / REPLAY_FILE


def next_folder(study: OutputFolders) -> Path:
    """The folder of the lists of scans to label next."""
    return study.folder / NEXT_FOLDER


def work_list(study: OutputFolders, task: str) -> Path:
    """Which scans of a task to label next."""
    return next_folder(study) / task / WORK_LIST


def work_folder(study: OutputFolders, task: str) -> Path:
    """The private folder of those scans, for annotation tools."""
    return study.pseudonyms.study_folder / NEXT_FOLDER / task


def label_versions(study: OutputFolders) -> Path:
    """The private table of all changes of labels."""
    return study.pseudonyms.study_folder / VERSIONS_FILE


def drift_table(study: OutputFolders) -> Path:
    """How far new scans are unlike known ones, by domain and measure."""
    return study.folder / DRIFT_FOLDER / DRIFT_TABLE


def drift_scans(study: OutputFolders) -> Path:
    """The new scans, those that are most unlike known ones first."""
    return study.folder / DRIFT_FOLDER / DRIFT_SCANS


def drift_page(study: OutputFolders) -> Path:
    """The page that shows both."""
    return study.folder / DRIFT_FOLDER / DRIFT_PAGE


def report_page(study: OutputFolders) -> Path:
    """The page of the report."""
    return study.stage_folder("report", {}) / REPORT_PAGE

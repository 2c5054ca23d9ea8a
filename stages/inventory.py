"""Build the inventory: geometry, subject, split and quality of every raw scan."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.io.records import read_record_if_whole, write_record
from ssl_pipeline.preprocess.plan import PLAN_FILE, Plan, build_plan
from ssl_pipeline.progress import debug, info
from ssl_pipeline.training.run_record import read_run_record
from ssl_pipeline.volumes import dataset_estimate, thumbnails
from ssl_pipeline.volumes.check_journal import JOURNAL_FILE, CheckJournal
from ssl_pipeline.volumes.duplicates import keypoints
from ssl_pipeline.volumes.duplicates.keypoints import KEYPOINTS_FILE
from ssl_pipeline.volumes.fingerprint import (
    data_fingerprint,
    record_file_hashes,
)
from ssl_pipeline.volumes.inventory import (
    INVENTORY_FILE,
    Inventory,
    build_inventory,
    read_salt_fingerprint,
)
from ssl_pipeline.volumes.label_versions import (
    LabelVersion,
    describe_label_changes,
    record_label_changes,
)
from ssl_pipeline.volumes.root_notes import root_notes
from ssl_pipeline.volumes.subjects.separation import separated_subjects
from ssl_pipeline.volumes.thumbnails import THUMBNAILS_FILE
from ssl_pipeline.volumes.visits.frames import REGISTRATIONS_FILE, RegistrationLog
from stages.core import layout
from stages.core.records import manifest_hash
from stages.core.resources import (
    RECORD_FILE_COUNT,
    DatasetSize,
    Hardware,
    ResourceEstimate,
    assumed,
    counted,
)
from stages.core.stage import StageResult
from stages.core.study import Study
from stages.evaluation_check import check_evaluations
from stages.returned_labels import returned_labels, returned_labels_hash
from stages.reviewed import readers_decisions

TITLE = "List all raw scans: geometry, subjects, splits and quality"
CONFIG_KEYS = ("data", "quality", "plan.number")
DEPENDS_ON = ("download",)
VERSION = 12
RESULT_FILES = (
    *(INVENTORY_FILE, THUMBNAILS_FILE, KEYPOINTS_FILE, PLAN_FILE),
    REGISTRATIONS_FILE,
)
OUTPUTS = (*RESULT_FILES, JOURNAL_FILE)  # a journal is there while it runs
WILDCARDS: tuple[str, ...] = ()
USES_GPU, USES_WORKERS, DISTRIBUTED = False, False, False
SHARDED, PER_TRIAL = False, False
TABLE_BYTES, SCAN_BYTES = 20_000, 12_000  # on disk: thumbnail, keypoints and row of each scan


def is_needed(study: Study) -> bool:
    """Always."""
    return True


def inputs(study: Study) -> dict[str, str]:
    """The listing of the raw folders: a file's path, size and content, not its date alone.

    Raises UserError where the salt is not the one that earlier results were made with.
    """
    study.pseudonyms.check_salt(read_salt_fingerprint(layout.inventory_table(study)))
    trained = read_run_record(study.stage_folder("pretrain", {}))
    study.pseudonyms.check_salt(trained.salt if trained else "")
    downloaded = {"download": manifest_hash(study, "download")} if study.download.packages else {}
    decisions = readers_decisions(study).fingerprint
    reviewed = {"decisions": decisions} if decisions else {}
    labels = returned_labels_hash(study)
    returned = {"returned_labels": labels} if labels else {}
    return {**downloaded, **reviewed, **returned, "listing": raw_listing_hash(study)}


def raw_listing_hash(study: Study) -> str:
    """Hash of the listing, which the Snakefile uses too."""
    return data_fingerprint(study.data, study.source_folder, study.pseudonyms.file_hashes)


def estimate_resources(study: Study, dataset: DatasetSize, hardware: Hardware) -> ResourceEstimate:
    """Every scan is read whole, a few at a time."""
    voxels = [math.prod(scan.shape) for scan in dataset.scans]
    return ResourceEstimate(
        disk=assumed(TABLE_BYTES + SCAN_BYTES * len(voxels), f"{SCAN_BYTES / 1e3:.0f} kB a scan"),
        files=counted(RECORD_FILE_COUNT + len(RESULT_FILES), "table, thumbnails, keypoints, plan"),
        memory=assumed(
            dataset_estimate.inventory_bytes(voxels),
            f"{dataset_estimate.BYTES_PER_VOXEL} bytes a voxel of the largest scans",
        ),
        seconds=assumed(
            dataset_estimate.inventory_seconds(voxels),
            f"{1e-6 / dataset_estimate.SECONDS_PER_VOXEL:.0f} million voxels/s on a core",
        ),
    )


def run(study: Study, out: Path) -> StageResult:
    """Write the inventory; stop when no scan can be used."""
    scans, images, points, plan_file, aligned, checks = (out / name for name in OUTPUTS)
    origins, previous = study.pseudonyms, _previous_inventory(scans, images, points)
    journal, registrations = CheckJournal(checks), RegistrationLog(aligned)
    inventory = build_inventory(
        study.data,
        study.quality,
        study.source_folder,
        origins,
        previous,
        journal,
        readers_decisions(study),
        registrations,
        returned_labels(study),
    )
    changes = record_label_changes(layout.label_versions(study), previous or inventory, inventory)
    inventory.write(scans)
    thumbnails.write(images, inventory.thumbnails)
    keypoints.write(points, inventory.keypoints)
    record_file_hashes(inventory, origins)
    origins.write_unused_files(inventory.unused_files)
    earlier_plan = read_record_if_whole(Plan, plan_file)
    plan = build_plan(inventory.accepted_scans, study.plan.number, earlier_plan)
    write_record(plan_file, plan)
    registrations.finish()
    journal.remove()
    _print_notes(inventory, previous, plan, changes)
    if inventory.unused_files:
        info(f"{origins.unused_files} lists the files that are of no known image format.")
    rejected = [scan for scan in inventory.scans if scan.quality == "rejected"]
    for scan in rejected:
        debug(f"{scan.id} rejected: {scan.reason}")
    if not inventory.accepted_scans:
        reasons = "; ".join(sorted({scan.reason for scan in rejected})[:3])
        raise UserError(
            f"None of {len(rejected)} scans can be used ({reasons}): "
            "`-v` prints the reason of each."
        )
    repaired = sum(scan.quality == "repaired" for scan in inventory.scans)
    some = f" ({repaired} repaired)" if repaired else ""
    summary = f"{len(inventory.accepted_scans)} scans accepted{some}, {len(rejected)} rejected"
    made = [scans, images, points, plan_file, aligned]
    return StageResult(made, summary, indexed_files=[origins.table])


def _print_notes(
    inventory: Inventory,
    previous: Inventory | None,
    plan: Plan,
    changes: Sequence[LabelVersion],
) -> None:
    """Print what is to be known of roots, labels and subjects."""
    for note in (*root_notes(inventory), *plan.notes):
        info(f"root {note.root}: {note.text}.")
    for idle in inventory.idle_excludes:
        info(f"root {idle.root}: `exclude` has {idle.pattern}, which matches nothing.")
    for fault in inventory.label_faults:
        info(f"scan {fault.scan}: {fault.text}.")
    if changes:
        info(f"{describe_label_changes(changes)}.")
    for one, other in separated_subjects(previous, inventory) if previous else ():
        info(
            f"Scans {one.id} of {one.split or 'no split'} and {other.id} of "
            f"{other.split or 'no split'} were of one subject: what joined them is gone. If "
            "they are one person, give them one name by the `subject` rule or the table."
        )


def check_results(study: Study) -> None:
    """Raise UserError where the table shows that a task cannot be evaluated."""
    check_evaluations(study)


def _previous_inventory(scans: Path, images: Path, keypoint_file: Path) -> Inventory | None:
    """The inventory of an earlier run; None where there is none, or one of another version."""
    try:
        return replace(
            Inventory.read(scans),
            thumbnails=thumbnails.read(images),
            keypoints=keypoints.read(keypoint_file),
        )
    except (FileNotFoundError, UserError):
        return None

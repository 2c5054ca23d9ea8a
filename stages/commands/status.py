"""Status of a study: one line a stage, from its files and, where there is SLURM, its queue.

That a stage runs, its step, rate, time left and item in work are those of two records that every
stage writes, wherever it runs, so the table needs no SLURM. A stage that is done may still be
out of date: `snakemake -n` says what would run again, and why. Nothing here writes a file.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from rich.table import Table

from cluster import slurm
from cluster.job_result import strip_noise
from cluster.launch import log_path, read_job_record
from cluster.slurm import JobStatus
from ssl_pipeline.errors import UserError, suggest_name
from ssl_pipeline.formatting import format_duration
from ssl_pipeline.io import lease
from ssl_pipeline.io.records import parse_object, read_json_if_whole, read_record_if_whole
from ssl_pipeline.monitoring.diagnosis import diagnose_whole_run
from ssl_pipeline.objectives.terms.term import diagnosis_rules
from ssl_pipeline.progress import ProgressRecord, read_progress
from ssl_pipeline.training.metrics_log import read_metrics
from ssl_pipeline.training.run_record import read_run_record
from stages.core import layout
from stages.core.elapsed import ElapsedTime
from stages.core.pretraining_runs import cohort_path, run_folder
from stages.core.records import is_stale, read_completion
from stages.core.stage_runs import StageRun, stage_runs
from stages.core.study import Study

COLUMNS = (
    *("stage", "state", "job", "node", "elapsed", "step"),
    *("rate", "left", "works on", "requeues", "diagnosis", "log"),
)


def status_table(study: Study) -> Table:
    """One row a stage, and one a task for evaluation stages; logs relative to its folder."""
    stages = stage_runs(study)
    records = {name: read_job_record(layout.job_folder(study, name)) for name in stages}
    known = slurm.job_statuses([found["job"] for found in records.values() if found])
    rows = []
    for name, part in stages.items():
        found = records[name]
        job = found["job"] if found else ""
        rows.append(_row(study, part, job, known.get(job)))
    return _format_table(f"{study.name} in {study.folder}", rows)


def _format_table(title: str, rows: list[list[str]]) -> Table:
    """The rows as a table, without empty columns, such as those of jobs where there are none."""
    shown = Table(title=title, title_justify="left", box=None)
    columns = list(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    used = [(column, cells) for column, cells in columns if any(cells)]
    for column, _ in used:
        shown.add_column(column, no_wrap=True)
    for cells in zip(*(cells for _, cells in used), strict=True):
        shown.add_row(*cells)
    return shown


def print_log(study: Study, name: str, follow: bool) -> None:
    """Print the log of a stage, and with `follow` what is added until Ctrl-C."""
    stages = stage_runs(study)
    if name not in stages:
        raise UserError(f"There is no stage {name}: {suggest_name(name, stages)}")
    path = _newest_log(study, name)
    if not path.exists():
        raise UserError(f"{name} has written no log yet: there is no {path}.")
    try:
        for line in _lines(path, follow):
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        print()


def _lines(path: Path, follow: bool) -> Iterator[str]:
    with open(path, errors="replace") as file:
        while (line := file.readline()) or follow:
            yield from strip_noise([line])
            if not line:
                time.sleep(0.5)


def _newest_log(study: Study, name: str) -> Path:
    """The log of a stage's newest job, or of its runs here."""
    folder = layout.job_folder(study, name)
    found = read_job_record(folder)
    if found and log_path(folder, found["job"]).exists():
        return log_path(folder, found["job"])
    return layout.log_file(study, name)


def _row(study: Study, stage_run: StageRun, job: str, job_status: JobStatus | None) -> list[str]:
    name, out = stage_run.name, stage_run.out
    log = _newest_log(study, name)
    record = read_progress(layout.progress_file(study, name))
    elapsed = read_record_if_whole(ElapsedTime, out / layout.ELAPSED_RECORD)
    is_running = elapsed and elapsed.is_running and (job_status is None or job_status.is_active)
    total = format_duration(elapsed.seconds) if elapsed else ""
    return [
        name,
        _state(stage_run, job_status, elapsed),
        job,
        job_status.nodes if job_status else "",
        job_status.elapsed if job_status else total,
        f"{record.done}/{record.total}" if record and record.total else "",
        *_work(record if is_running else None),
        _requeues(out, job),
        _diagnosis(stage_run) if stage_run.stage == "pretrain" else "",
        str(log.relative_to(study.folder)) if log.exists() else "",
    ]


def _state(stage_run: StageRun, job_status: JobStatus | None, elapsed: ElapsedTime | None) -> str:
    """Whether a stage runs, is done, or was stopped; of a job in the queue what SLURM calls it.

    It is out of date where another version, or other settings, would do it again.
    """
    done = read_completion(stage_run.out)
    if job_status and (job_status.is_active or not done):
        return job_status.state
    if elapsed and elapsed.is_running:
        return f"running since {datetime.fromtimestamp(elapsed.last_start):%Y-%m-%d %H:%M}"
    if done:
        failed = f", {done.failed} failed" if done.failed else ""
        is_old = is_stale(stage_run.study, stage_run.stage, stage_run.wildcards)
        return f"done{failed}{', out of date' if is_old else ''}"
    return "stopped" if elapsed else ""


def _work(record: ProgressRecord | None) -> tuple[str, str, str]:
    """Rate, time left, and what is in work, of a stage that runs; empty of others."""
    if record is None:
        return "", "", ""
    doing = f"{record.activity} {record.detail}".rstrip()
    if not record.left_s:
        return "", "", doing
    return f"{record.rate_per_s:.2g}/s", format_duration(record.left_s), doing


def _diagnosis(stage_run: StageRun) -> str:
    """Diagnosis of a run, or of a run so far; empty before its first snapshot."""
    study = stage_run.study
    if stage_run.is_done and (record := read_run_record(stage_run.out)):
        return record.diagnosis
    with suppress(UserError):  # what the run starts from is not there yet
        if cohort_path(study).exists():
            rows = read_metrics(layout.metrics_log(run_folder(study)))
            term_rules = diagnosis_rules(study.objective.list_terms())
            if not any("rankme" in row for row in rows):
                return ""
            steps = (study.training.first_step, int(rows[-1]["step"]))
            return diagnose_whole_run(
                rows, study.monitoring, term_rules, steps, study.training.log_every
            ).name
    return ""


def _requeues(out: Path, job: str) -> str:
    """How often a job went back to the queue, from its lease."""
    lease_file = out / lease.LEASE_FILE
    held = (read_json_if_whole(parse_object, lease_file) or {}) if job else {}
    return str(held["attempt"]) if held.get("job") == int(job or 0) and held else ""

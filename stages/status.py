"""How far a study is: one line a stage, from its files and, where there is SLURM, from its queue.

Step, rate and time left are read from the stage's log, which every stage writes alike wherever it
runs, so the table needs no SLURM. A stage that is done may still be out of date: `snakemake -n`
says what would run again, and why.
"""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rich.table import Table

from cluster import slurm
from cluster.launch import log_path, record
from cluster.outcome import without_noise
from cluster.slurm import Standing
from ssl_pipeline import fence
from ssl_pipeline.atomic import read_json
from ssl_pipeline.errors import UserError, nearest
from ssl_pipeline.flight.verdict import judge
from ssl_pipeline.training.metrics import read as read_metrics
from stages.contract import DONE
from stages.parts import Part, parts
from stages.runs import cohort_path, run_folder
from stages.study import Study

COLUMNS = (
    *("stage", "state", "job", "node", "elapsed", "step"),
    *("rate", "left", "requeues", "verdict", "log"),
)
PROGRESS = re.compile(r"(\d+)/(\d+) after \d+ s, about (\d+) s left")
TAIL_BYTES = 16_384


def table(study: Study) -> Table:
    """One row a stage, and one a task for the stages that judge; logs as below the folder."""
    stages = parts(study)
    records = {name: record(study.folder / "jobs" / name) for name in stages}
    known = slurm.standings([found["job"] for found in records.values() if found])
    rows = []
    for name, part in stages.items():
        found = records[name]
        job = found["job"] if found else ""
        rows.append(_row(study, part, job, known.get(job)))
    return _shown(f"{study.name} in {study.folder}", rows)


def _shown(title: str, rows: list[list[str]]) -> Table:
    """The rows as a table, without the columns that say nothing, such as those of jobs here."""
    shown = Table(title=title, title_justify="left", box=None)
    columns = list(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    said = [(column, cells) for column, cells in columns if any(cells)]
    for column, _ in said:
        shown.add_column(column, no_wrap=True)
    for cells in zip(*(cells for _, cells in said), strict=True):
        shown.add_row(*cells)
    return shown


def show_log(study: Study, name: str, follow: bool) -> None:
    """Print the log of a stage, and with `follow` what is added until Ctrl-C."""
    stages = parts(study)
    if name not in stages:
        raise UserError(f"There is no stage {name}: {nearest(name, stages)}")
    path = _newest_log(study, name)
    if not path.exists():
        raise UserError(f"{name} has not said anything yet: there is no {path}.")
    try:
        for line in _lines(path, follow):
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        print()


def _lines(path: Path, follow: bool) -> Iterator[str]:
    with open(path, errors="replace") as file:
        while (line := file.readline()) or follow:
            yield from without_noise([line])
            if not line:
                time.sleep(0.5)


def _newest_log(study: Study, name: str) -> Path:
    """The log of a stage's newest job, or of its runs here."""
    folder = study.folder / "jobs" / name
    found = record(folder)
    if found and log_path(folder, found["job"]).exists():
        return log_path(folder, found["job"])
    return study.folder / "logs" / f"{name}.log"


def _row(study: Study, part: Part, job: str, standing: Standing | None) -> list[str]:
    name, out = part.name, part.out
    live = standing is not None and standing.live
    state = ""
    if standing and (live or not (out / DONE).exists()):
        state = standing.state
    elif (out / DONE).exists():
        failed = read_json(out / DONE).get("failed")
        state = f"done, {failed} failed" if failed else "done"
    log = _newest_log(study, name)
    step, rate, left = _progress(log, live)
    return [
        name,
        state,
        job,
        standing.nodes if standing else "",
        standing.elapsed if standing else "",
        step,
        rate,
        left,
        _requeues(out, job),
        _verdict(part) if part.stage == "pretrain" else "",
        str(log.relative_to(study.folder)) if log.exists() else "",
    ]


def _verdict(part: Part) -> str:
    """What the flight recorder said of a run, or says of it so far; empty before it has looked."""
    study = part.study
    if part.done:
        return str(read_json(part.out / "run.json")["verdict"])
    with suppress(UserError):  # what the run starts from is not there yet
        if cohort_path(study).exists():
            rows = read_metrics(run_folder(study) / "metrics.jsonl")
            return judge(rows, study.flight).name if any("rank" in row for row in rows) else ""
    return ""


def _progress(log: Path, live: bool) -> tuple[str, str, str]:
    """Step, rate and time left, as the end of a log has them."""
    if not log.exists():
        return "", "", ""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = PROGRESS.findall(file.read().decode(errors="replace"))
    if not lines:
        return "", "", ""
    step, steps, left = (int(word) for word in lines[-1])
    if not live or not left:
        return f"{step}/{steps}", "", ""
    return f"{step}/{steps}", f"{(steps - step) / left:.2g}/s", f"{left // 60} min {left % 60} s"


def _requeues(out: Path, job: str) -> str:
    """How often a job went back to the queue, from its lease."""
    lease = out / fence.LEASE
    held = read_json(lease) if job and lease.exists() else {}
    return str(held["attempt"]) if held.get("job") == int(job or 0) and held else ""

"""A cell that fails costs its row, not the study: it is shown, and it alone runs again."""

import json
import shutil

from stages.commands import status
from stages.core.layout import MANIFEST
from stages.core.manifests import refresh_manifests
from stages.core.runner import run_stage
from stages.core.study_file import load_study


def finetune(file):
    study = load_study(file)
    run_stage("finetune", study, {"task": "side"})
    return study, study.stage_folder("finetune", {"task": "side"})


def cells(out):
    return {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}


def state(study):
    rows = list(zip(*(column.cells for column in status.status_table(study).columns), strict=True))
    return next(row[1] for row in rows if row[0] == "finetune-side")


def test_a_failed_cell_is_shown_and_runs_again_alone(copied, capsys):
    text = copied.read_text()
    shutil.rmtree(load_study(copied).stage_folder("finetune", {"task": "side"}) / "cells")
    copied.write_text(text.replace("finetune: {", "finetune: {learning_rate: 1.0e+30, "))
    assert copied.read_text() != text
    study, out = finetune(copied)
    said = capsys.readouterr().err
    assert "cells failed, such as FloatingPointError: training diverged" in said
    assert "run the same command again, which computes what failed alone" in said
    failed = json.loads((out / "results.json").read_text())["failed"]
    assert state(study) == f"done, {len(failed)} failed"
    before = cells(out)
    run_stage("report", study, {})
    page = (study.folder / "report/report.html").read_text()
    assert "training diverged" in page and ">failed<" in page
    assert (out / MANIFEST).exists()  # what waits for the stage may go on
    refresh_manifests(study)
    assert not (out / MANIFEST).exists()  # and the next time Snakemake runs it again
    capsys.readouterr()
    finetune(copied)
    assert capsys.readouterr().out.count("is computed again, as others may be") == 1
    again = {name for name, when in cells(out).items() if before[name] != when}
    assert again == {name for name in before if not name.startswith("baseline-pixels")}
    copied.write_text(text)
    study, out = finetune(copied)
    assert json.loads((out / "results.json").read_text())["failed"] == []
    assert state(study) == "done"


def test_what_other_settings_would_do_again_is_out_of_date(copied):
    assert state(load_study(copied)) == "done"
    changed = copied.read_text().replace("finetune: {", "finetune: {learning_rate: 2.0e-3, ")
    copied.write_text(changed)
    assert state(load_study(copied)) == "done, out of date"

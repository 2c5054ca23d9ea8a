"""The stage that evaluates on corrupted scans, from the study's file to the report."""

import json

from stages.core.runner import run_stage
from stages.core.stage_runs import stage_runs
from stages.core.study_file import load_study
from tests.stages.conftest import run_cli

ROBUSTNESS = """\
robustness: {severities: [5], corruptions: [{name: gamma}]}
"""


def test_a_task_is_evaluated_on_corrupted_scans_and_reported(copied):
    text = copied.read_text().replace("finetune: {", "finetune: {keep_networks: all, ")
    copied.write_text(text + ROBUSTNESS)
    study = load_study(copied)
    assert {"robustness-side", "robustness-tissue"} < stage_runs(study).keys()
    done = run_cli("robustness", "--config", copied, "task=side")
    assert done.returncode == 2 and "set finetune.keep_networks to all" in done.stderr
    for task in ("side", "tissue"):
        run_stage("finetune", study, {"task": task})
        run_stage("robustness", study, {"task": task})
    results = json.loads((study.folder / "robustness/side/results.json").read_text())
    assert {row["method"] for row in results["rows"]} == {"knn", "linear", "full"}
    run_stage("probe", study, {"task": "side"})
    run_stage("report", study, {})
    page = (study.folder / "report/report.html").read_text()
    assert page.count("means over corruptions, which are applied to whole scans") == 2
    assert "linear probe on corrupted scans: pretrained" in page
    assert "nothing to do" in run_cli("robustness", "--config", copied, "task=side").stdout
    estimated = run_cli("estimate", "--config", copied)
    assert estimated.returncode == 0 and "robustness-tissue" in estimated.stdout

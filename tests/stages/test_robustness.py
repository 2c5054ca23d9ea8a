"""The stage that judges on worse scans, from the study's file to the report."""

import json

from stages.contract import perform
from stages.parts import parts
from stages.study import load
from tests.stages.conftest import door

ASKED = """\
robustness: {severities: [1, 5], corruptions: [{name: blur}, {name: gamma}]}
"""


def test_a_task_is_judged_on_worse_scans_and_the_report_shows_it(copied):
    text = copied.read_text().replace("finetune: {", "finetune: {keep_networks: true, ")
    copied.write_text(text + ASKED)
    study = load(copied)
    assert {"robustness-side", "robustness-tissue"} < parts(study).keys()
    done = door("robustness", "--config", copied, "task=side")
    assert done.returncode == 2 and "set finetune.keep_networks" in done.stderr
    for task in ("side", "tissue"):
        perform("finetune", study, {"task": task})
        perform("robustness", study, {"task": task})
    results = json.loads((study.folder / "robustness/side/results.json").read_text())
    assert {row["method"] for row in results["rows"]} == {"knn", "linear", "full"}
    perform("probe", study, {"task": "side"})
    perform("report", study, {})
    page = (study.folder / "report/report.html").read_text()
    assert page.count("means over corruptions, which act on whole scans") == 2
    assert "linear probe on worse scans: pretrained" in page
    assert "nothing to do" in door("robustness", "--config", copied, "task=side").stdout
    estimated = door("estimate", "--config", copied)
    assert estimated.returncode == 0 and "robustness-tissue" in estimated.stdout

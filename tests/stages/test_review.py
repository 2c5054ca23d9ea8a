"""Review decisions in a study: a new one reruns the inventory, and nothing else that it spares."""

import json

from ssl_pipeline.volumes.inventory import Inventory
from stages.core.runner import run_stage
from stages.core.study_file import load_study


def test_a_new_decision_rejects_its_scan_alone(study_file, capsys):
    record = study_file.parent / "reviewed.jsonl"
    record.write_text("")
    text = study_file.read_text()
    study_file.write_text(text.replace("data:\n", "data:\n  decisions: reviewed.jsonl\n", 1))
    study = load_study(study_file)
    table = study.folder / "inventory" / "scans.parquet"
    for name in ("inventory", "preprocess"):
        run_stage(name, study, {})
    before = Inventory.read(table).scans
    run_stage("inventory", study, {})
    assert "inventory: nothing to do" in capsys.readouterr().out
    decision = {
        "format": 1, "scan": before[0].id, "verdict": "reject", "reason": "metal",
        "reviewer": "reader 2", "time": "2026-03-01T10:00:00Z",
    }  # fmt: skip
    with open(record, "a") as file:
        file.write(json.dumps(decision) + "\n")
    for name in ("inventory", "preprocess"):
        run_stage(name, study, {})
    assert "5 volumes stored, 0 of them new" in capsys.readouterr().out
    after = Inventory.read(table).scans
    assert after[1:] == before[1:] and after[0].reason == "rejected in review: metal"
    assert "reviewed" not in json.dumps(study.redacted_config)

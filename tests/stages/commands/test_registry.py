"""`ssl-pipeline registry` on the encoder of a study that has run."""

import json

from ssl_pipeline import load_encoder
from tests.stages.conftest import run_cli


def registry_cli(folder, *words):
    return run_cli("registry", *words, "--registry", folder)


def test_an_encoder_is_added_found_and_rolled_back(whole, tmp_path):
    folder = tmp_path / "encoders"
    for reason in ("the first", "the second"):
        done = registry_cli(
            folder, "add", "chest", "--config", whole, "--alias", "champion", "--reason", reason
        )
        assert done.returncode == 0, done.stderr
    shown = json.loads(registry_cli(folder, "show", "chest@champion").stdout)
    assert shown["content"]["reason"] == "the second"
    assert len(shown["content"]["cohorts"]) == 1 and shown["content"]["salt_fingerprint"]
    assert any(name.startswith("checkpoint/step-") for name in shown["files"])
    assert load_encoder(shown["encoder"]).manifest.training_summary["study"] == "tiny"
    back = registry_cli(folder, "rollback", "chest@champion", "--reason", "worse")
    assert back.returncode == 0, back.stderr
    lines = registry_cli(folder, "list").stdout.splitlines()
    assert [("chest@champion" in line) for line in lines[1:]].count(True) == 1
    assert registry_cli(folder, "history", "chest@champion").stdout.count("back to") == 1
    differs = registry_cli(folder, "diff", "chest@champion", shown["id"][:12]).stdout
    assert "the first" in differs and "the second" in differs and "steps" not in differs
    assert "2 entries and 1 alias as written" in registry_cli(folder, "verify").stdout


def test_an_entry_names_no_path_of_raw_scans(whole, tmp_path):
    folder = tmp_path / "encoders"
    assert registry_cli(folder, "add", "chest", "--config", whole).returncode == 0
    for path in folder.rglob("entry.json"):
        assert str(whole.parent) not in path.read_text()


def test_a_folder_that_is_no_registry_is_one_sentence(tmp_path):
    done = registry_cli(tmp_path, "list")
    assert done.returncode == 2
    assert "is no registry" in done.stderr and "Traceback" not in done.stderr

"""Promotion of an encoder: who may replace the champion, and what a kill or a rival leaves."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import yaml

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.registry import aliases
from ssl_pipeline.registry.aliases import AliasMovedError
from ssl_pipeline.registry.promotion import PromotionRecord
from ssl_pipeline.registry.registry import Registry
from ssl_pipeline.report.registry_page import render_registry_page
from stages.core.resources import dataset_size
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from stages.domain_measures import DomainMeasures
from stages.gate_plan import gate_plan
from stages.promote import _promote, evaluate_gate
from tests.conftest import write_study
from tests.stages.conftest import copy_study
from tests.stages.test_full_disk import OWN, can_mount

STAGES = ("inventory", "preprocess", "pretrain", "probe", "promote")
KILLS = int(os.environ.get("KILLS", "8"))  # moments, spread over the stage's length


def edit(file, **sections):
    """Give a study other sections."""
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**content, **sections}, sort_keys=False))
    return file


def run(file, *stages):
    """Run stages of a study, the probe on its one task; returns the study as it is then."""
    for name in stages:
        run_stage(name, load_study(file), {"task": "side"} if name == "probe" else {})
    return load_study(file)


def record_of(file):
    path = load_study(file).folder / "promote/promotion.json"
    return PromotionRecord.model_validate_json(path.read_bytes())


@pytest.fixture(scope="module")
def champion(tmp_path_factory):
    """A small study with one person held out, whose encoder was promoted; use a copy."""
    folder = tmp_path_factory.mktemp("promote") / "first"
    folder.mkdir()
    file = write_study(folder)
    (folder / "val.txt").write_text("3\n")
    content = yaml.safe_load(file.read_text())
    content["data"]["splits"]["lists"]["val"] = "val.txt"
    side = {**content["tasks"]["side"], "stages": ["probe"]}
    section = {"registry": f"{folder}/registry", "name": "head", "gain": {"side": 0.05}}
    edit(
        file,
        data=content["data"],
        tasks={"side": side},
        training={**content["training"], "steps": 2},
        probe={"methods": [{"name": "knn"}]},
        promote={**section, "places": 4},
    )
    run(file, *STAGES)
    return file


@pytest.fixture(scope="module")
def challenger(champion, tmp_path_factory):
    """The same study with other steps and so another encoder, which the gate compared."""
    file = copy_study(champion, tmp_path_factory.mktemp("challenge") / "second")
    edit(file, training={**yaml.safe_load(file.read_text())["training"], "steps": 3})
    run(file, "pretrain", "probe", "promote")
    return file


@pytest.fixture
def copy(tmp_path):
    """Copies a study with its registry."""
    return lambda file: copy_study(file, tmp_path / "copy")


def registry_of(file):
    return Registry(file.parent / "registry")


def test_the_first_encoder_is_promoted_with_all_that_speaks_for_it(champion):
    record, registry = record_of(champion), registry_of(champion)
    assert registry.resolve("head@champion") == record.entry
    entry = registry.entry(record.entry)
    assert entry.content.verdict == "promoted"
    assert "There is no champion yet" in entry.content.reason
    assert entry.content.promotion.criteria["gain"] == {"side": 0.05}
    assert entry.content.promotion.criteria_note.endswith("before the challenger was evaluated.")
    assert any(name.startswith("checkpoint/") for name in entry.files)
    (bank,) = registry.banks("head").values()
    assert bank.domain == {"root": "head", "site": ""} and len(bank.places) == 4
    assert list(registry.find_damage()) == []


def test_a_second_run_does_nothing_and_one_after_a_kill_ends_as_the_first(champion, copy, capsys):
    file = copy(champion)
    entry = record_of(file).entry
    assert load_study(file).champion == ""  # which it is itself
    capsys.readouterr()
    run(file, "promote")
    assert "promote: nothing to do" in capsys.readouterr().out
    shutil.rmtree(load_study(file).folder / "promote")
    run(file, "promote")
    assert record_of(file).entry == entry and len(registry_of(file).entries()) == 1
    (move,) = registry_of(file).alias_folder("head", "champion").glob("*.json")
    move.unlink()  # as if it had been killed between entry and alias
    shutil.rmtree(load_study(file).folder / "promote")
    run(file, "promote")
    assert registry_of(file).resolve("head@champion") == entry


def test_a_challenger_is_compared_on_the_same_subjects_and_places(champion, challenger):
    promotion = record_of(challenger).promotion
    assert promotion.champion == record_of(champion).entry
    assert promotion.decision.verdict == "undecided" and record_of(challenger).entry == ""
    assert "side is undecided with 2 scored subjects; about 10" in promotion.decision.reason
    assert "held-out loss in head is undecided with 1 scored" in promotion.decision.reason
    (ours,) = promotion.measures
    (theirs,) = record_of(champion).promotion.measures
    assert ours.bank_sha256 == theirs.bank_sha256 and ours.losses != theirs.losses
    assert registry_of(challenger).resolve("head@champion") == promotion.champion
    table = record_of(challenger).domains
    assert table.encoders == (promotion.champion[:12], "challenger")
    (row,) = table.rows
    assert row.domain == "head" and row.n_subjects == 1
    then, now = (loss.mean for loss in row.losses)
    assert table.backward.mean == pytest.approx(now - then, abs=2e-6)
    assert table.forward is None  # no domain is new
    results = json.loads((load_study(challenger).folder / "probe/side/results.json").read_text())
    assert results["initializations"][:2] == ["pretrained", "champion"]
    entry = registry_of(challenger).entry(promotion.champion)
    bundle = load_study(challenger).encoders["champion"]
    assert training_subjects.read(bundle) and entry.content.cohorts


def test_estimate_says_before_training_whether_the_gate_can_decide(challenger):
    study = load_study(challenger)
    lines = gate_plan(study, dataset_size(study))
    assert lines[0].startswith("promote: side needs about ")
    assert "scored subjects and has 2, so the gate would leave it undecided" in lines[0]
    assert "standard deviation of 0.05, which is assumed" in lines[0]
    assert lines[1] == (
        "promote: held-out loss in head needs about 10 held-out subjects and has 1, so the gate "
        "would leave it undecided."
    )


def test_the_report_says_whether_it_may_replace_the_champion(challenger, copy):
    file = copy(challenger)
    study = run(file, "report")
    for name in ("report.html", "report.md"):
        page = (study.folder / "report" / name).read_text()
        assert (
            "May it replace the champion?" in page and "Undecided. The criterion held-out" in page
        )
        assert "Backward transfer: since the encoder that brought it in" in page
        assert "were fixed at" in page and "before the challenger was evaluated." in page


def test_criteria_that_change_after_the_results_are_said_to(challenger, copy):
    file = copy(challenger)
    section = yaml.safe_load(file.read_text())["promote"]
    run(edit(file, promote={**section, "gain": {"side": 0.01}}), "promote")
    note = record_of(file).promotion.criteria_note
    assert "changed after a look: results of probe side were there by then" in note


def test_looser_criteria_for_a_second_challenger_are_said_to_follow_a_verdict(challenger, copy):
    """Nothing of that challenger was seen; but the study was compared with the champion before."""
    file = copy(challenger)
    content = yaml.safe_load(file.read_text())
    tight = record_of(file).promotion.versions[-1].sha256
    section = {**content["promote"], "gain": {"side": 0.01}}
    edit(file, promote=section, training={**content["training"], "steps": 4})
    study = run(file, "pretrain", "probe", "promote")
    promotion = record_of(file).promotion
    assert not promotion.versions[-1].results_before
    (past,) = promotion.other_verdicts
    assert (past.criteria, past.verdict, past.champion) == (tight, "undecided", promotion.champion)
    sentence = f"other verdicts on the same champion (undecided by criteria {tight[:12]} on "
    assert sentence in promotion.reason and sentence in promotion.criteria_note
    shutil.rmtree(study.folder / "promote")  # as if it had been killed: the next run says the same
    run(file, "promote")
    assert record_of(file).promotion.other_verdicts == (past,)


def test_an_entry_keeps_that_its_criteria_followed_a_verdict(champion, challenger, copy):
    """Also where the private folder that had kept the verdict is gone: of registered encoders."""
    file = copy(challenger)
    study, registry = load_study(file), registry_of(file)
    promotion = record_of(file).promotion
    promoted = promotion.model_copy(
        update={"decision": promotion.decision.model_copy(update={"verdict": "promoted"})}
    )
    entry = _promote(study, promoted)
    registry.move("head", "champion", promotion.champion, entry, "taken back")
    for path in study.pseudonyms.study_folder.glob("promotion_criteria.json"):
        path.unlink()
    section = yaml.safe_load(file.read_text())["promote"]
    run(edit(file, promote={**section, "gain": {"side": 0.01}}), "promote")
    (past,) = record_of(file).promotion.other_verdicts
    assert (past.verdict, past.criteria) == ("promoted", promotion.versions[-1].sha256)
    again = record_of(file).promotion
    second = _promote(study, again)
    assert "had other verdicts on the same champion" in registry.entry(second).content.reason
    assert "had other verdicts on the same champion" in render_registry_page(registry)


def test_of_two_that_promote_at_once_the_second_is_told_to_compare(champion, challenger, copy):
    file = copy(challenger)
    second = load_study(file)
    second._champion = None  # as it was when neither had promoted
    shutil.rmtree(second.folder / "promote")
    with pytest.raises(AliasMovedError, match="moved meanwhile: compare with that one"):
        run_stage("promote", second, {})
    assert registry_of(file).resolve("head@champion") == record_of(champion).entry


def test_what_was_rolled_back_is_not_promoted_again(champion, copy):
    file = copy(champion)
    study, registry, entry = load_study(file), registry_of(file), record_of(file).entry
    before = registry.add(
        registry.entry(entry).content.model_copy(update={"study": "old"}), file.parent / "raw"
    )
    alias = registry.alias_folder("head", "champion")
    for path in alias.glob("*.json"):
        path.unlink()
    aliases.move_alias(alias, before, None, "by hand")
    aliases.move_alias(alias, entry, before, "better")
    aliases.roll_back(alias, "fails on the new scanner")
    shutil.rmtree(study.folder / "promote")
    study = load_study(file)
    study._champion = None
    run_stage("promote", study, {})
    decision = record_of(file).promotion.decision
    assert decision.verdict == "kept"
    assert "was rolled back: fails on the new scanner." in decision.reason


def test_a_collapsed_run_is_not_promoted(champion, copy):
    file = copy(champion)
    study = load_study(file)
    run_record = study.folder / "pretrain/run.json"
    content = json.loads(run_record.read_text())
    run_record.write_text(json.dumps({**content, "diagnosis": "collapsed"}))
    decision = evaluate_gate(study, DomainMeasures(study)).decision
    assert (decision.verdict, decision.reason) == (
        "kept", "The pretraining run is collapsed, not healthy."
    )  # fmt: skip


def test_a_champion_that_is_gone_is_one_sentence(challenger, copy):
    file = copy(challenger)
    shutil.rmtree(registry_of(file).folder / "entries")
    with pytest.raises(UserError, match=r"has no entry .*: copy the entry again from a backup"):
        load_study(file)


def test_a_champion_of_other_preprocessing_is_one_sentence(challenger, copy):
    file = copy(challenger)
    study = edit(file, preprocess={"foreground": "auto"})
    with pytest.raises(
        UserError, match=r"^head@champion of .* was trained with another `preprocess`"
    ):
        run(study, "inventory", "preprocess", "probe")


@pytest.mark.parametrize(
    ("subjects", "salt", "absence"),
    [
        ("val", "", "the champion was trained on 1 subject of it"),
        ("train", "another", "the champion was trained on subjects that were coded with another"),
        ("", "", "the champion does not say which subjects it was trained on"),
    ],
)
def test_a_champion_that_may_know_held_out_subjects_leaves_the_domain_open(
    challenger, copy, subjects, salt, absence
):
    study = load_study(copy(challenger))
    domains, bundle = DomainMeasures(study), study.encoders["champion"]
    entries = domains.catalog.entries
    if subjects:
        learned = [entry.id for entry in entries if entry.split == subjects]
        own = study.pseudonyms.salt_fingerprint
        # Under another salt neither codes nor, of other scans, voxels are the same.
        known = [replace(entry, voxel_hash="x") for entry in entries] if salt else entries
        training_subjects.write(bundle, learned, known, salt or own)
    else:
        (bundle / training_subjects.FILE_NAME).unlink()
    (criterion,) = domains.criteria()
    assert criterion.contrast is None and absence in criterion.absence


@pytest.mark.kill
def test_a_disk_that_is_full_between_entry_and_alias_leaves_the_alias_as_it_was(champion, copy):
    file = copy(champion)
    registry, out = registry_of(file), load_study(file).folder
    for folder in (registry.folder / "entries", registry.folder / "aliases", out / "promote"):
        shutil.rmtree(folder)
    aliases_folder = registry.folder / "aliases"
    aliases_folder.mkdir()
    if not can_mount(aliases_folder):
        pytest.skip("This machine lets nobody mount a small disk, which `unshare` needs.")
    mount = f"mount -t tmpfs -o nr_inodes=1 none {aliases_folder}"
    command = f"{sys.executable} -m stages promote --config {file}"
    done = subprocess.run([*OWN, f"{mount} && {command}"], capture_output=True, text=True)
    assert done.returncode == 2 and "The disk is full" in done.stdout + done.stderr
    (entry,) = registry.entries()
    assert registry.current("head", "champion") is None
    run(file, "promote")
    assert registry.resolve("head@champion") == entry and len(registry.entries()) == 1


def test_another_objective_leaves_the_domain_open(challenger, copy):
    file = copy(challenger)
    study = load_study(edit(file, objective={"name": "mae"}))
    (criterion,) = DomainMeasures(study).criteria()
    assert criterion.contrast is None and "trained by another objective" in criterion.absence


@pytest.mark.parametrize(
    ("promote", "message"),
    [
        ({"gain": {"sides": 0.05}}, r"promote.gain names sides, which is no task.*side"),
        ({"gain": {"side": 0.05}, "keep": {"side": 0.1}}, "is to be kept and to gain"),
        ({"gain": {"side": 0.05}, "domains": ["scaner"]}, "promote.domains names scaner"),
    ],
)
def test_a_gate_that_nobody_can_pass_is_refused_at_once(champion, copy, promote, message):
    file = copy(champion)
    edit(file, promote={"registry": "registry", "name": "head", **promote})
    with pytest.raises(UserError, match=message):
        load_study(file)


@pytest.mark.kill
def test_a_kill_at_any_moment_leaves_the_alias_old_or_new(champion, copy):
    file = copy(champion)
    registry = registry_of(file)
    alias, out = registry.alias_folder("head", "champion"), load_study(file).folder / "promote"
    command = [sys.executable, "-m", "stages", "promote", "--config", str(file)]
    whole_s = None
    for number in range(-1, KILLS):  # the first is not disturbed, and says how long it takes
        shutil.rmtree(alias)
        shutil.rmtree(out)
        with subprocess.Popen(command) as process:
            while not out.exists() and process.poll() is None:
                time.sleep(0.01)
            began = time.monotonic()
            if whole_s is None:
                assert process.wait() == 0
                whole_s = time.monotonic() - began
            else:
                time.sleep(whole_s * number / KILLS)
                process.kill()
        current = registry.current("head", "champion")
        assert current in (None, record_of(champion).entry)
        run(file, "promote")
        assert registry.resolve("head@champion") == record_of(champion).entry
        assert list(registry.find_damage()) == []

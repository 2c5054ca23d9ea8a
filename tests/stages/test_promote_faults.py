"""Promotion where something is wrong: rivals, clocks, locks, other tasks, models and subjects."""

import shutil
import subprocess
import sys

import pytest
import yaml

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.registry import aliases, entry
from stages.domain_measures import DomainMeasures
from tests.stages.conftest import copy_study
from tests.stages.test_promote import (
    challenger,
    champion,
    copy,
    edit,
    load_study,
    record_of,
    registry_of,
    run,
)

__all__ = ["challenger", "champion", "copy"]  # fixtures
NO_LOCKS = """
import errno, fcntl, sys
def refuse(*words):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = fcntl.lockf = refuse
from pathlib import Path
from ssl_pipeline.registry.registry import Registry
registry = Registry(Path(sys.argv[1]))
(found,) = registry.entries()
content = registry.entry(found).content.model_copy(update={"reason": "another"})
other = registry.add(content, registry.encoder_folder(found))
registry.move("head", "champion", other, found, "better")
(bank,) = registry.banks("head").values()
registry.add_bank("head", bank)
assert registry.resolve("head@champion") == other and not list(registry.find_damage())
"""


def test_of_two_studies_that_promote_at_once_one_becomes_champion(champion, tmp_path):
    """The other is asked to compare with it, and try again."""
    first = copy_study(champion, tmp_path / "first")
    second = copy_study(champion, tmp_path / "second")
    registry = registry_of(first)
    shutil.rmtree(registry.folder)
    section = yaml.safe_load(first.read_text())["promote"]
    training = yaml.safe_load(second.read_text())["training"]
    edit(second, promote=section, training={**training, "learning_rate": 0.01})
    run(second, "pretrain", "probe")
    for file in (first, second):
        shutil.rmtree(load_study(file).folder / "promote")
    command = [sys.executable, "-m", "stages", "promote", "--config"]
    both = [
        subprocess.Popen([*command, file], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for file in (first, second)
    ]
    said = [process.communicate()[0].decode() for process in both]
    assert sorted(process.returncode for process in both) in ([0, 0], [0, 2]), said
    winner = registry.resolve("head@champion")
    for process, text in zip(both, said, strict=True):
        assert process.returncode == 0 or ("Traceback" not in text and "again" in text)
    assert len(list(registry.alias_folder("head", "champion").iterdir())) == 1
    entries = [record_of(file).entry for file in (first, second) if has_record(file)]
    assert entries.count(winner) == 1
    assert list(registry.find_damage()) == []


def has_record(file):
    """Whether a study's promotion has ended with a verdict."""
    return (load_study(file).folder / "promote/promotion.json").exists()


def test_a_registry_needs_no_locks_of_its_file_system(champion, copy):
    registry = registry_of(copy(champion))
    done = subprocess.run(
        [sys.executable, "-c", NO_LOCKS, registry.folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


class LateClock(aliases.datetime):
    """A clock that has stayed behind by years."""

    @classmethod
    def now(cls, tz=None):
        return cls(2001, 1, 1, tzinfo=tz)


def test_clocks_that_disagree_change_nothing_but_the_printed_times(champion, copy, monkeypatch):
    registry = registry_of(copy(champion))
    first = registry.resolve("head@champion")
    for module in (aliases, entry):
        monkeypatch.setattr(module, "datetime", LateClock)
    content = registry.entry(first).content.model_copy(update={"parent": first})
    second = registry.add(content, registry.encoder_folder(first))
    registry.move("head", "champion", second, first, "better")
    assert registry.entry(second).created_at < registry.entry(first).created_at
    assert registry.resolve("head@champion") == second
    assert [found for found, _ in registry.lineage(second)] == [second, first]
    alias = registry.alias_folder("head", "champion")
    assert aliases.roll_back(alias, "worse") == first
    assert list(registry.find_damage()) == []


def test_a_bank_that_changed_or_is_gone_is_found(champion, copy):
    registry = registry_of(copy(champion))
    (path,) = registry.bank_files()
    original = path.read_text()
    for damaged in (original.replace('"seed": 0', '"seed": 1'), original[:-20]):
        assert damaged != original
        path.write_text(damaged)
        assert any("as it was when" in found for found in registry.find_damage())
    path.unlink()
    (sentence,) = registry.find_damage()
    assert "copy it again from a backup of the registry" in sentence


def test_renamed_tasks_are_refused_by_name_until_the_criteria_name_them(challenger, copy):
    file = copy(challenger)
    content = yaml.safe_load(file.read_text())
    tasks = {"left_or_right": content["tasks"]["side"]}
    with pytest.raises(UserError, match=r"promote.gain names side, which is no task"):
        load_study(edit(file, tasks=tasks))
    edit(file, promote={**content["promote"], "gain": {"left_or_right": 0.05}})
    with pytest.raises(UserError, match="left_or_right") as error:
        run(file, "promote")  # nothing has been evaluated by this name
    assert "\n" not in str(error.value)


def test_a_champion_of_another_model_leaves_the_domain_open(challenger, copy):
    file = copy(challenger)
    model = yaml.safe_load(file.read_text())["model"]
    study = load_study(edit(file, model={**model, "preset": "S"}))
    (criterion,) = DomainMeasures(study).criteria()
    assert criterion.contrast is None
    assert "trained by another objective, or is another model" in criterion.absence


def test_a_champion_that_has_seen_a_scored_subject_is_not_compared(challenger, copy):
    file = copy(challenger)
    study = load_study(file)
    bundle, entries = study.encoders["champion"], DomainMeasures(study).catalog.entries
    known = [each.id for each in entries if each.split in ("train", "test")]
    training_subjects.write(bundle, known, entries, study.pseudonyms.salt_fingerprint)
    shutil.rmtree(study.folder / "probe")
    with pytest.raises(
        UserError, match="champion was pretrained on 2 subjects of the split test"
    ) as error:
        run(file, "probe")
    assert "\n" not in str(error.value)

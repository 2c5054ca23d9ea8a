"""A finished run that is continued: the same killed or not, on more steps or more scans."""

import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.io.atomic import write_json
from ssl_pipeline.objectives import Contrastive
from ssl_pipeline.objectives.contrast import Contrast
from ssl_pipeline.objectives.terms.term import Ramp
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training.config import ParentRun, Training
from ssl_pipeline.training.metrics_log import read_metrics
from ssl_pipeline.training.ranks import RankInfo
from ssl_pipeline.training.schedule import learning_rate, run_progress
from ssl_pipeline.training.time_budget import steps_within
from stages import pretrain
from stages.commands.clean import clean_study
from stages.core.pretraining_runs import cohort_path, pretraining_run, read_cohort, run_folder
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from stages.trainer import build_trainer
from tests.conftest import crash_at_step, read_json, write_scans, write_study

SETTINGS = "{steps: 12, log_every: 1, batch_size: 4, precision: fp32, device: cpu, threads: 1, "
CONTINUED = SETTINGS + "checkpoint_every: 2, continue_from: {steps: 6}}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The tiny study after 6 steps; use a copy."""
    file = write_study(tmp_path_factory.mktemp("extends"))
    for name in ("inventory", "preprocess", "pretrain"):
        run_stage(name, load_study(file), {})
    return file


@pytest.fixture
def place(trained, tmp_path):
    """Makes copies of it, each in its own folder."""

    def copy(name):
        folder = tmp_path / name
        shutil.copytree(trained.parent, folder)
        file = folder / "tiny.yaml"
        file.write_text(trained.read_text().replace(str(trained.parent), str(folder)))
        return file

    return copy


def continue_study(file, training=CONTINUED):
    """The study with this section in place of its own."""
    content = yaml.safe_load(file.read_text())
    sections = {"training": yaml.safe_load(training), "monitoring": {"snapshot_samples": 4}}
    file.write_text(yaml.safe_dump(content | sections))
    return load_study(file)


def weights(study):
    return load_file(study.folder / "pretrain/encoder/encoder.safetensors")


def trainer_of(study):
    catalog = Catalog.read(study.folder / "preprocess/catalog.parquet")
    run = pretraining_run(study)
    return build_trainer(run, catalog, run.cohort.entries(catalog), RankInfo())[0]


def test_a_continued_run_ends_bit_for_bit_whether_killed_or_not(place):
    whole, cut = continue_study(place("whole")), continue_study(place("cut"))
    base = weights(whole)
    run_stage("pretrain", whole, {})
    run = trainer_of(cut)
    assert run.step == 6
    begun = run.objective.encoder.state_dict()
    assert all(torch.equal(begun[name], base[name]) for name in base)
    crash_at_step(run, 8)
    assert trainer_of(cut).step == 8
    run_stage("pretrain", cut, {})
    assert weights(whole).keys() == base.keys()
    for name, weight in weights(whole).items():
        assert torch.equal(weights(cut)[name], weight)
    assert any(not torch.equal(base[name], weight) for name, weight in weights(whole).items())
    rows = read_metrics(run_folder(cut) / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(7, 13))
    said = read_json(cut.folder / "pretrain/run.json")
    assert "to step 12 on cohort 1 from the end of the run of 6 steps" in said["continue_from"]
    assert all(row["ramp_factor"] == 1.0 for row in rows)
    rates = [row["learning_rate"] for row in rows]
    assert rates == [learning_rate(step, cut.training) for step in range(6, 12)]
    again = continue_study(cut.folder.parent / "tiny.yaml", CONTINUED.replace("12", "14"))
    assert trainer_of(again).step == 6  # from the base, not from another extension of it


def test_a_run_goes_on_where_settings_change_that_its_weights_do_not_depend_on(place, capsys):
    file = place("threads")
    study = continue_study(file, SETTINGS + "checkpoint_every: 2}")
    crash_at_step(trainer_of(study), 4)
    changed = SETTINGS.replace("device: cpu, threads: 1", "device: auto, threads: 2")
    again = continue_study(file, changed + "checkpoint_every: 3, loader_threads: 2}")
    assert run_folder(again) == run_folder(study)
    run_stage("pretrain", again, {})
    said = capsys.readouterr().out
    assert "goes on from step 4 with 2 threads on cpu, before 1 on cpu" in said
    assert "unfinished" not in said
    summary = read_json(again.folder / "pretrain/provenance.json")["training_summary"]
    assert summary["threads"] == 2 and summary["computed_before_step"]["4"]["threads"] == 1
    run_stage("pretrain", study, {})
    assert "nothing to do" in capsys.readouterr().out


def test_a_new_run_says_which_unfinished_one_is_left_and_what_continues_it(place, capsys):
    file = place("left")
    study = continue_study(file, SETTINGS + "checkpoint_every: 2}")
    crash_at_step(trainer_of(study), 4)
    changed = SETTINGS.replace("steps: 12", "steps: 8") + "checkpoint_every: 2, "
    run_stage("pretrain", continue_study(file, changed + "learning_rate: 0.01}"), {})
    said = [line for line in capsys.readouterr().out.splitlines() if "unfinished" in line]
    assert said == [
        f"pretrain: a new run begins; the unfinished one of 4 of 12 steps stays in "
        f"{run_folder(study)}, and goes on where training.learning_rate is 0.001 and "
        "training.steps is 12 again."
    ]
    continue_study(file, SETTINGS + "checkpoint_every: 2}")
    assert trainer_of(load_study(file)).step == 4


def test_weights_and_metadata_are_frozen_with_the_cohort(place):
    study = load_study(place("weights"))
    run = pretraining_run(study)
    known = [*run.cohort.checksums.items()]
    assert run.cohort_items == [*known, *((scan, 1.0) for scan, _ in known)]
    catalog = Catalog.read(study.folder / "preprocess/catalog.parquet")
    heavier = Catalog(
        tuple(replace(entry, weight=9.0, targets={"age": "9"}) for entry in catalog.entries)
    )
    then = run.cohort.entries(heavier)
    assert {entry.weight for entry in then} == {1.0}
    assert {entry.targets["side"] for entry in then} == {"0", "1"}
    by_age = Contrastive(contrast=Contrast(subject_weight=1, similar_by={"age": 1}))
    compared = pretraining_run(study.model_copy(update={"objective": by_age}))
    assert compared.cohort_items[2 * len(known) :] == [
        (entry.id, {"site": entry.site, "targets": entry.targets}) for entry in then
    ]


def test_a_cohort_of_another_format_is_one_sentence(place):
    study = load_study(place("format"))
    write_json(cohort_path(study), {**read_json(cohort_path(study)), "format": 0})
    with pytest.raises(UserError, match=r"cohort-1-.* another format version: remove it, and"):
        read_cohort(study)


def test_only_a_run_freezes_its_cohort(place):
    study = load_study(place("unfrozen"))
    frozen = read_cohort(study)
    cohort_path(study).unlink()
    assert pretrain.inputs(study) and run_folder(study) and read_cohort(study) == frozen
    assert not cohort_path(study).exists()
    (study.folder / "pretrain/run.json").unlink()
    run_stage("pretrain", study, {})
    assert cohort_path(study).exists() and read_cohort(study) == frozen


def test_the_rate_warms_up_again_and_the_ramp_stays_whole():
    settings = {"warmup": 0.1, "learning_rate": 1.0, "min_learning_rate": 0.0}
    section = Training(steps=1100, continue_from=ParentRun(steps=1000), **settings)
    rates = [learning_rate(step, section) for step in range(1000, 1100)]
    alone = [learning_rate(step, Training(steps=100, **settings)) for step in range(100)]
    assert rates == pytest.approx([rate * max(rates) for rate in alone])
    assert max(rates) == rates[9] and rates[-1] < 0.01
    assert rates[9] == pytest.approx((100 / 1000) ** 0.5)  # for it adds a tenth of what was
    longer = Training(steps=3000, continue_from=ParentRun(steps=1000), **settings)
    assert max(learning_rate(step, longer) for step in range(1000, 3000)) == 1.0
    assert Ramp(start=0.97, end=0.99).factor(run_progress(1000, section)) == 1.0
    assert run_progress(500, Training(steps=1000)) == 0.5


def test_more_scans_come_in_with_a_raised_cohort_and_typical_earlier_ones_are_replayed(
    place, capsys
):
    file = place("more")
    old = set(read_cohort(load_study(file)).checksums)
    write_scans(file.parent / "raw", 8)
    (file.parent / "raw/images/person0.nii.gz").unlink()
    for name in ("inventory", "preprocess"):
        run_stage(name, load_study(file), {})
    raised = "cohort: 2, replay: {choose: {name: typical, subjects: 0.7}}, continue_from"
    study = continue_study(file, CONTINUED.replace("continue_from", raised))
    run_stage("pretrain", study, {})
    assert "replays 2 of 3 earlier subjects, 40% of each step" in capsys.readouterr().out
    chosen = read_json(run_folder(study) / "replay.json")["subjects"]
    sampler = trainer_of(study).sampler
    names = list(sampler.subject_codes)
    drawn = [[names[code] for code in sampler.subjects(step)] for step in range(6, 12)]
    assert all(sum(name in chosen for name in step) == 2 for step in drawn)
    assert len({name for step in drawn for name in step} - set(chosen)) == 2
    now = set(read_cohort(study).checksums)
    assert len(now - old) == 2 and len(old - now) == 1
    assert training_subjects.read(study.encoder).scans == old | now  # who was seen before, is seen
    assert read_json(study.folder / "pretrain/run.json")["volumes"] == 5


def test_a_run_is_continued_on_a_new_root(place):
    file = place("roots")
    parent = run_folder(load_study(file))
    content = yaml.safe_load(file.read_text())
    (root,) = content["data"]["roots"]
    content["data"]["roots"].append({**root, "name": "other", "weight": 2.0})
    file.write_text(yaml.safe_dump(content))
    raised = CONTINUED.replace("continue_from: {steps: 6}}", "cohort: 2, continue_from: {steps: 6")
    with pytest.raises(UserError, match="has never been started"):
        pretraining_run(continue_study(file, raised + "}}"))
    assert pretraining_run(continue_study(file, raised + ", roots: [head]}}")).parent.folder == (
        parent
    )
    with pytest.raises(UserError, match=r"training.continue_from.roots names heads"):
        continue_study(file, raised + ", roots: [heads]}}")


def test_replay_needs_a_cohort_before(place):
    for base in ("", "continue_from: {steps: 6}, cohort: 1, "):
        with pytest.raises(UserError, match="replay draws from cohorts before this one"):
            continue_study(place(f"replay{len(base)}"), SETTINGS + base + "replay: {}}")


def test_a_continued_run_is_continued(place):
    file = place("twice")
    run_stage("pretrain", continue_study(file), {})
    twice = SETTINGS.replace("12", "16") + "checkpoint_every: 2, continue_from: "
    study = continue_study(file, twice + "{steps: 12, continue_from: {steps: 6}}}")
    run_stage("pretrain", study, {})
    steps = [row["step"] for row in read_metrics(run_folder(study) / "metrics.jsonl")]
    assert steps == [13, 14, 15, 16]
    kept = sorted((study.folder / "pretrain/runs").iterdir())
    clean_study(study, remove_all=False, assume_yes=True)
    assert sorted((study.folder / "pretrain/runs").iterdir()) == kept and len(kept) == 3
    assert all(len(list((run / "checkpoints").glob("*.pt"))) == 1 for run in kept)


@pytest.mark.parametrize(
    "base, why",
    [
        ("{steps: 7}", "has left no checkpoint here"),
        ("{steps: 6, cohort: 3}", "has never been started"),
        ("{steps: 6, continue_from: {steps: 3}}", "has left no checkpoint here"),
    ],
)
def test_a_missing_parent_run_is_named_with_the_command_that_makes_it(place, base, why):
    study = continue_study(place("none"), CONTINUED.replace("{steps: 6}", base))
    with pytest.raises(UserError, match=why) as error:
        run_stage("pretrain", study, {})
    assert "`python -m stages pretrain --config STUDY` makes it" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unfinished_parent_run_is_refused(place):
    file = place("unfinished")
    longer = continue_study(file, SETTINGS.replace("12", "8") + "checkpoint_every: 2}")
    crash_at_step(trainer_of(longer), 4)
    study = continue_study(file, CONTINUED.replace("{steps: 6}", "{steps: 8}"))
    with pytest.raises(UserError, match=r"the run of 8 steps .* has come to step 4 only"):
        run_stage("pretrain", study, {})


def test_steps_count_those_of_the_run_before(place):
    with pytest.raises(UserError, match=r"steps is 6, not above continue_from\.steps, 6"):
        continue_study(place("short"), CONTINUED.replace("12", "6"))


BY_HOURS = SETTINGS.replace("steps: 12", "hours: 0.01") + "checkpoint_every: 1"


def write_budget(study, steps):
    """What the hours of the study's run became, on a machine that had little to do."""
    (run_folder(study)).mkdir(parents=True)
    measured = {"seconds_per_step": 0.01 * 3600 / steps, "device": "cpu", "ranks": 1}
    budget = {"format": 1, "hours": 0.01, "steps": steps, **measured}
    write_json(run_folder(study) / "time_budget.json", budget)


def test_a_run_of_hours_keeps_its_steps_when_it_is_resumed_or_continued(place):
    file = place("hours")
    study = continue_study(file, BY_HOURS + "}")
    write_budget(study, 4)
    crash_at_step(trainer_of(study), 1)
    trainer = trainer_of(study)
    assert (trainer.step, trainer.training.steps) == (1, 4)
    trainer.train()
    rates = [row["learning_rate"] for row in read_metrics(run_folder(study) / "metrics.jsonl")]
    assert rates == [learning_rate(step, trainer.training) for step in range(4)]
    longer = BY_HOURS.replace("0.01", "0.02") + ", continue_from: {hours: 0.01}}"
    trainer = trainer_of(continue_study(file, longer))
    assert [path.name for path in trainer.folder.iterdir()] == ["time_budget.json"]
    budget = read_json(trainer.folder / "time_budget.json")
    assert trainer.training.added_steps == int(0.01 * 3600 / budget["seconds_per_step"])
    assert (trainer.step, trainer.training.first_step, budget["hours"]) == (4, 4, 0.01)
    assert budget["steps"] == trainer.training.steps == 4 + trainer.training.added_steps > 4
    by_steps = BY_HOURS.replace("hours: 0.01", "steps: 4") + ", continue_from: {hours: 0.01}}"
    with pytest.raises(UserError, match=r"steps is 4, and the run of 0\.01 hours .* has 4: steps"):
        trainer_of(continue_study(file, by_steps))
    (run_folder(study) / "time_budget.json").unlink()
    with pytest.raises(
        UserError, match=r"time_budget\.json, which says how many .* is gone: bring"
    ):
        trainer_of(study)


def test_the_folder_of_a_run_depends_on_its_hours_and_not_on_their_steps(place):
    file = place("hashes")
    study = continue_study(file, BY_HOURS + "}")
    before = run_folder(study)
    write_budget(study, 5)
    assert run_folder(study) == before and pretraining_run(study).steps == 5
    assert run_folder(continue_study(file, BY_HOURS.replace("0.01", "0.03") + "}")) != before


def test_hours_too_few_for_a_checkpoint_are_one_sentence():
    assert steps_within(1.0, 3.0, 200) == 1200
    with pytest.raises(UserError, match=r"in which 120 steps of 3 s fit here, fewer than"):
        steps_within(0.1, 3.0, 200)


def test_a_study_without_a_parent_run_keeps_its_run_folder(study):
    """A new setting leaves finished runs alone: what is not set is not in the hash."""
    with_it = study.model_dump(mode="json")
    assert with_it["training"]["continue_from"] is None and with_it["init_from"] is None
    assert with_it["training"]["replay"] is None
    without = study.sections_hash(("training", "init_from"), {})
    assert without == study.sections_hash(("training",), {})

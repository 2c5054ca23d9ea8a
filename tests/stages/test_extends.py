"""A finished run that is gone on with: the same killed or not, on more steps or more scans."""

import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ssl_pipeline.atomic import read_json, write_json
from ssl_pipeline.errors import UserError
from ssl_pipeline.export import trained_on
from ssl_pipeline.objectives import Contrastive
from ssl_pipeline.objectives.config import Contrast, Ramp
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.training.config import Extends, Training
from ssl_pipeline.training.metrics import read
from ssl_pipeline.training.schedule import learning_rate, share_of_run
from ssl_pipeline.training.world import World
from stages import pretrain
from stages.clean import clean
from stages.contract import perform
from stages.runs import cohort_path, drawn_from, frozen_list, run_folder
from stages.study import load
from tests.conftest import die_at, write_scans, write_study

DIALS = "{steps: 12, log_steps: 1, pairs: 4, precision: fp32, device: cpu, threads: 1, "
EXTENDED = DIALS + "checkpoint_steps: 2, extends: {steps: 6}}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The tiny study after 6 steps; use a copy."""
    file = write_study(tmp_path_factory.mktemp("extends"))
    for name in ("inventory", "preprocess", "pretrain"):
        perform(name, load(file), {})
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


def extended(file, training=EXTENDED):
    """The study with this section in place of its own."""
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**content, "training": yaml.safe_load(training)}))
    return load(file)


def weights(study):
    return load_file(study.folder / "pretrain/encoder/encoder.safetensors")


def run_of(study):
    catalog = Catalog.read(study.folder / "preprocess/catalog.parquet")
    entries = [entry for entry in catalog.entries if entry.id in frozen_list(study)]
    return pretrain._run(study, catalog, entries, World())[0]


def test_an_extension_ends_bit_for_bit_whether_killed_or_not(place):
    whole, cut = extended(place("whole")), extended(place("cut"))
    base = weights(whole)
    perform("pretrain", whole, {})
    run = run_of(cut)
    assert run.step == 6
    begun = run.objective.encoder.state_dict()
    assert all(torch.equal(begun[name], base[name]) for name in base)
    die_at(run, 8)
    assert run_of(cut).step == 8
    perform("pretrain", cut, {})
    assert weights(whole).keys() == base.keys()
    for name, weight in weights(whole).items():
        assert torch.equal(weights(cut)[name], weight)
    assert any(not torch.equal(base[name], weight) for name, weight in weights(whole).items())
    rows = read(run_folder(cut) / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(7, 13))
    said = read_json(cut.folder / "pretrain/run.json")
    assert "to step 12 on cohort 1 from the end of the run of 6 steps" in said["extends"]
    assert all(row["ramp"] == 1.0 for row in rows)
    rates = [row["learning_rate"] for row in rows]
    assert rates == [learning_rate(step, cut.training) for step in range(6, 12)]
    again = extended(cut.folder.parent / "tiny.yaml", EXTENDED.replace("12", "14"))
    assert run_of(again).step == 6  # from the base, not from another extension of it


def test_weights_and_words_are_frozen_with_the_list(place):
    study = load(place("weights"))
    path, known = cohort_path(study), [*frozen_list(study).items()]
    assert drawn_from(study) == [*known, *((scan, 1.0) for scan, _ in known)]
    catalog = Catalog.read(study.folder / "preprocess/catalog.parquet")
    heavier = Catalog(
        tuple(replace(entry, weight=9.0, targets={"age": "9"}) for entry in catalog.entries)
    )
    then = pretrain.trained_on_now(study, heavier)
    assert {entry.weight for entry in then} == {1.0}
    assert {entry.targets["side"] for entry in then} == {"0", "1"}
    alike = Contrastive(contrast=Contrast(global_weight=1, alike={"age": 1}))
    assert drawn_from(study.model_copy(update={"objective": alike}))[2 * len(known) :] == [
        (entry.id, {"site": entry.site, "targets": entry.targets}) for entry in then
    ]
    write_json(path, known)  # as lists were before they held weights
    assert drawn_from(study) == known
    assert {entry.weight for entry in pretrain.trained_on_now(study, heavier)} == {9.0}


def test_the_rate_warms_up_again_and_the_ramp_stays_whole():
    dials = {"warmup": 0.1, "learning_rate": 1.0, "final_rate": 0.0}
    section = Training(steps=1100, extends=Extends(steps=1000), **dials)
    rates = [learning_rate(step, section) for step in range(1000, 1100)]
    assert rates == [learning_rate(step, Training(steps=100, **dials)) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] and rates[-1] < 0.01
    assert Ramp(start=0.97, end=0.99).at(share_of_run(1000, section)) == 1.0
    assert share_of_run(500, Training(steps=1000)) == 0.5


def test_more_scans_come_in_with_a_raised_cohort(place):
    file = place("more")
    old = set(frozen_list(load(file)))
    write_scans(file.parent / "raw", 8)
    (file.parent / "raw/images/person0.nii.gz").unlink()
    for name in ("inventory", "preprocess"):
        perform(name, load(file), {})
    study = extended(file, EXTENDED.replace("extends", "cohort: 2, extends"))
    perform("pretrain", study, {})
    now = set(frozen_list(study))
    assert len(now - old) == 2 and len(old - now) == 1
    assert trained_on.read(study.encoder).scans == old | now  # who was seen before, is seen
    assert read_json(study.folder / "pretrain/run.json")["volumes"] == 5


def test_an_extension_is_extended(place):
    file = place("twice")
    perform("pretrain", extended(file), {})
    twice = DIALS.replace("12", "16") + "checkpoint_steps: 2, extends: "
    study = extended(file, twice + "{steps: 12, extends: {steps: 6}}}")
    perform("pretrain", study, {})
    steps = [row["step"] for row in read(run_folder(study) / "metrics.jsonl")]
    assert steps == [13, 14, 15, 16]
    kept = sorted((study.folder / "pretrain/runs").iterdir())
    clean(study, everything=False, agreed=True)
    assert sorted((study.folder / "pretrain/runs").iterdir()) == kept and len(kept) == 3
    assert all(len(list((run / "checkpoints").glob("*.pt"))) == 1 for run in kept)


@pytest.mark.parametrize(
    "base, why",
    [
        ("{steps: 7}", "has left no checkpoint here"),
        ("{steps: 6, cohort: 3}", "has never been started"),
        ("{steps: 6, extends: {steps: 3}}", "has left no checkpoint here"),
    ],
)
def test_a_run_that_is_not_there_is_told_with_what_makes_it(place, base, why):
    study = extended(place("none"), EXTENDED.replace("{steps: 6}", base))
    with pytest.raises(UserError, match=why) as told:
        perform("pretrain", study, {})
    assert "`python -m stages pretrain --config STUDY` makes it" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_run_that_is_not_finished_is_told(place):
    file = place("unfinished")
    longer = extended(file, DIALS.replace("12", "8") + "checkpoint_steps: 2}")
    die_at(run_of(longer), 4)
    study = extended(file, EXTENDED.replace("{steps: 6}", "{steps: 8}"))
    with pytest.raises(UserError, match=r"the run of 8 steps .* has come to step 4 only"):
        perform("pretrain", study, {})


def test_steps_count_those_of_the_run_before(place):
    with pytest.raises(UserError, match=r"steps is 6, not above extends\.steps, 6"):
        extended(place("short"), EXTENDED.replace("12", "6"))


def test_a_study_that_extends_nothing_has_the_run_folder_that_it_had(study):
    """A dial that is new leaves finished runs alone: what is not said is not in the hash."""
    with_it = study.model_dump(mode="json")
    assert with_it["training"]["extends"] is None and with_it["init_from"] is None
    without = study.sections_hash(("training", "init_from"), {})
    assert without == study.sections_hash(("training",), {})

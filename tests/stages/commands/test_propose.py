"""`estimate --hours` prints settings that the estimate itself says to fit."""

import pytest
import yaml

from ssl_pipeline.errors import UserError
from stages.commands.estimate import estimate_stage
from stages.commands.propose import print_proposal
from stages.core.resources import dataset_size
from stages.core.stage_runs import stage_runs
from stages.core.study_file import load_study

SECTIONS = ("views", "model", "preprocess", "training", "tasks")


def wall_hours(study):
    dataset = dataset_size(study)
    runs = stage_runs(study).values()
    found = [estimate_stage(r.stage, r.study, r.wildcards, dataset, None) for r in runs]
    return sum(each.wall_s for each in found) / 3600


def proposal(path, hours, capsys):
    """The printed settings, and the study with them."""
    print_proposal(load_study(path, as_written=True), None, hours)
    settings = yaml.safe_load(capsys.readouterr().out)
    content = yaml.safe_load(path.read_text())
    for key in SECTIONS:
        own = content.get(key, {})
        for name, value in settings.get(key, {}).items():
            merged = {**own.get(name, {}), **value} if isinstance(value, dict) else value
            own[name] = merged
        content[key] = own
    path.write_text(yaml.safe_dump(content))
    return settings, load_study(path)


def finetuning(settings):
    return {name: task["finetune"] for name, task in settings["tasks"].items()}


def test_what_is_printed_fits_into_the_hours_and_more_hours_train_longer(study_file, capsys):
    text = study_file.read_text().replace("patch_voxels: [8, 8, 8]", "patch_voxels: auto")
    steps = []
    for hours in (1.0, 4.0):
        study_file.write_text(text)
        settings, study = proposal(study_file, hours, capsys)
        assert 0.8 * hours < wall_hours(study) <= hours
        with_crop = [name for name, task in settings["tasks"].items() if "crop_voxels" in task]
        assert with_crop == ["tissue"]  # what a crop of the other shows is its task
        assert finetuning(settings) == {
            "side": {"steps": 200, "batch_size": 4},
            "tissue": {"steps": 520, "batch_size": 4},  # five more for each labelled subject
        }
        steps.append(settings["training"]["steps"])
    assert 500 <= steps[0] < steps[1]


def test_short_hours_shorten_fine_tuning_and_small_memory_its_batch(study_file, capsys):
    text = study_file.read_text().replace("batch_size: 4}", "batch_size: 16}")
    study_file.write_text(text + "plan: {memory_gib: 0.02}\n")
    settings, study = proposal(study_file, 0.1, capsys)
    assert wall_hours(study) <= 0.1
    found = finetuning(settings)["tissue"]
    assert found["batch_size"] < 16 and found["steps"] in (130, 260)  # a quarter, or a half


@pytest.mark.parametrize(
    ("hours", "message"), [(1e-4, "Nothing fits into 0.0001 h: .* evaluate.seeds"), (-1, "--hours")]
)
def test_hours_that_nothing_fits_into_are_refused(study_file, hours, message):
    with pytest.raises(UserError, match=message):
        print_proposal(load_study(study_file, as_written=True), None, hours)

"""Mistakes of a study, each reported in one sentence: file, key, what it got, the nearest key."""

import json

import pytest
import yaml

from ssl_pipeline.errors import UserError
from stages.core.stage_runs import evaluation_runs
from stages.core.study import Study
from stages.core.study_file import load_study
from tests.command_line import run_forked


def changed(study_file, change):
    content = yaml.safe_load(study_file.read_text())
    change(content)
    study_file.write_text(yaml.safe_dump(content))
    return study_file


def contrastive_settings(settings):
    """An objective with contrast between subjects, and pairs enough for it."""
    contrast = {"subject_weight": 0.1, **settings}
    return {
        "objective": {"name": "contrastive", "contrast": contrast},
        "training": {"steps": 6, "batch_size": 16},
    }


MISTAKES = {
    "unknown key": (
        lambda c: c["preprocess"].update(spacng_mm=[1, 1, 1]),
        "tiny.yaml: preprocess.spacng_mm is not known",
    ),
    "unknown key, near a known one": (
        lambda c: c["training"].update(step=5),
        "training.step is not known: did you mean steps?",
    ),
    "steps and hours": (
        lambda c: c["training"].update(hours=8),
        "training: steps is 6 and hours is 8: give one of them",
    ),
    "no steps": (
        lambda c: c["training"].update(steps=0),
        "training: steps is 0 and hours is 0: give one of them",
    ),
    "no more hours than the run before": (
        lambda c: c.update(training={"hours": 8, "continue_from": {"hours": 8}}),
        "training: hours is 8, not above continue_from.hours, 8: hours counts those of the earlier",
    ),
    "a run before without a length": (
        lambda c: c["training"].update(continue_from={"cohort": 2}),
        "training.continue_from: steps is 0 and hours is 0: give one of them",
    ),
    "an average of one step": (
        lambda c: c["training"].update(steps=1, ema_decay=0.9),
        "ema_decay is 0.9, and the run has one step, of which there is no average",
    ),
    "objectives compared by hours": (
        lambda c: c.update(ablate={}, training={"hours": 8, "batch_size": 16}),
        "counted for training.steps: give steps in place of training.hours",
    ),
    "unknown section": (
        lambda c: c.update(traning={}),
        "traning is not known: did you mean training?",
    ),
    "two numbers for three axes": (
        lambda c: c["preprocess"].update(mr={"spacing_mm": [1, 1]}),
        "preprocess.mr.spacing_mm is [1, 1]: its entry 3 is missing.",
    ),
    "unknown kind": (
        lambda c: c["tasks"]["tissue"].update(kind="segmntation"),
        "tasks.tissue.kind is segmntation: did you mean segmentation?",
    ),
    "label that no root declares": (
        lambda c: c["tasks"]["tissue"].update(label="tisue"),
        "tasks.tissue.label is tisue, which is not known: did you mean tissue?",
    ),
    "mirroring that makes a left of a right": (
        lambda c: (
            c["tasks"]["tissue"].update(classes={1: "Left lung", 2: "right_lung"}),
            c.update(finetune={"augmentation": {"flip": ["y", "x"]}}),
        ),
        "tasks.tissue has classes of the left and of the right, which mirroring exchanges",
    ),
    "unknown setting of a task": (
        lambda c: c["tasks"]["side"].update(finetune={"step": 5}),
        "tasks.side.finetune.step is not known: did you mean steps?",
    ),
    "no stage that supports the task": (
        lambda c: c["tasks"]["tissue"].update(stages=["probe"]),
        "and a task of kind segmentation is evaluated by finetune alone: leave `stages` out",
    ),
    "target that no root declares": (
        lambda c: c["tasks"]["side"].update(target="sde"),
        "tasks.side.target is sde, which is not known: did you mean side?",
    ),
    "two tasks of one title": (
        lambda c: c["tasks"]["tissue"].update(title="side "),
        "tasks.side and tasks.tissue have the title side",
    ),
    "a name too long for a folder": (
        lambda c: c["tasks"].update({"t" * 300: c["tasks"]["side"]}),
        "should have at most 80 characters",
    ),
    "a title that nobody sees": (
        lambda c: c["tasks"]["tissue"].update(title="\u200b"),
        "tasks.tissue.title is empty: write one in visible letters",
    ),
    "classes that differ by the size of letters": (
        lambda c: c["tasks"]["tissue"].update(classes={1: "dark", 2: "Dark"}),
        "classes.1 is dark, as another class is: name them apart",
    ),
    "a class without a name": (
        lambda c: c["tasks"]["tissue"].update(classes={1: "dark", 2: ""}),
        "classes.2 has no name: write one in visible letters",
    ),
    "root that is not there": (
        lambda c: c["tasks"]["side"].update(roots=["haed"]),
        "tasks.side.roots names haed: did you mean head?",
    ),
    "scans of nobody": (
        lambda c: c["data"]["roots"][0].pop("subject"),
        "tasks.side takes scans of root head, which does not say which subject they are of",
    ),
    "crop that patches do not fill": (
        lambda c: c["views"].update(crop_voxels=[17, 16, 16]),
        "views.crop_voxels is [17, 16, 16], no multiple of model.patch_voxels, [8, 8, 8]",
    ),
    "local crops as large as their view": (
        lambda c: c["views"].update(local_crops={"number": 2, "share": 0.9}),
        "views.local_crops.share is 0.9, which of views of [2, 2, 2] patches takes [2, 2, 2]",
    ),
    "local crops that no term asks of": (
        lambda c: c["views"].update(local_crops={"number": 2}),
        "views.local_crops.number is 2, and no term asks of local crops",
    ),
    "a term of partners without any": (
        lambda c: c.update(
            objective={"name": "custom", "terms": [{"name": "partner_reconstruction"}]}
        ),
        "learns from two scans of a visit, and views.partner is scan: set it to visit",
    ),
    "negative spacing": (
        lambda c: c["preprocess"].update(mr={"spacing_mm": [1, 1, -1]}),
        "give three positive numbers, in the order (z, y, x)",
    ),
    "impossible share": (
        lambda c: c["views"].update(visible_ratio=1.5),
        "views.visible_ratio is 1.5",
    ),
    "ramp that ends before it starts": (
        lambda c: c.update(objective={"name": "hybrid", "ramp": {"start": 0.5, "end": 0.1}}),
        "objective.ramp",
    ),
    "contrast between the subjects of too few pairs": (
        lambda c: c.update(objective={"name": "contrastive", "contrast": {"subject_weight": 0.1}}),
        "objective has the term subject_contrast with weight 0.1, which means little with",
    ),
    "too few samples to see that they are no Gaussian": (
        lambda c: c.update(objective={"name": "custom", "terms": [{"name": "lejepa"}]}),
        "objective has the term lejepa with weight 1, which means little with fewer than 32 sampl",
    ),
    "a teacher over more steps than the run has": (
        lambda c: c.update(objective={"name": "hybrid_dino"}),
        "objective has the term dino, whose teacher is an average over about 125 steps, and "
        "training.steps is 6: train for more, or lower objective.teacher_momentum",
    ),
    "a teacher that is less certain than the encoder": (
        lambda c: c.update(objective={"name": "ibot", "ibot": {"teacher_temperature": 0.1}}),
        "teacher_temperature is 0.1, not below student_temperature, 0.1",
    ),
    "subjects similar by unknown metadata": (
        lambda c: c.update(contrastive_settings({"similar_by": {"siet": "equal"}})),
        "objective has the term subject_contrast, which reads siet: did you mean site?",
    ),
    "subjects similar by the target of a task": (
        lambda c: c.update(contrastive_settings({"similar_by": {"side": "equal"}})),
        "objective has the term subject_contrast, which reads side, the target of tasks.side",
    ),
    "a listed term that reads the target of a task": (
        lambda c: c.update(
            objective={
                "name": "custom",
                "terms": [{"name": "subject_contrast", "similar_by": {"side": "equal"}}],
            },
            training={"batch_size": 16},
        ),
        "objective has the term subject_contrast, which reads side, the target of tasks.side",
    ),
    "a term that predicts the target of a task": (
        lambda c: c.update(
            objective={
                "name": "custom",
                "terms": [{"name": "target_prediction", "targets": {"side": {"kind": "finding"}}}],
            }
        ),
        "objective has the term target_prediction, which reads side, the target of tasks.side",
    ),
    "a term listed twice": (
        lambda c: c.update(objective={"name": "custom", "terms": [{"name": "local_contrast"}] * 2}),
        "terms is ['local_contrast', 'local_contrast']: give each once",
    ),
    "subjects similar where none are contrasted": (
        lambda c: c.update(
            contrastive_settings({"similar_by": {"site": "equal"}, "subject_weight": 0})
        ),
        "similar_by is about the loss between subjects, whose weight is 0",
    ),
    "subjects similar within no width": (
        lambda c: c.update(contrastive_settings({"similar_by": {"age": float("inf")}})),
        "objective.contrast.similar_by.age",
    ),
    "unknown objective": (lambda c: c.update(objective={"name": "magic"}), "objective"),
    "missing name": (lambda c: c.pop("name"), "name is missing"),
    "word for a number": (lambda c: c["training"].update(steps="many"), "training.steps is 'many'"),
    "unknown key in a list": (
        lambda c: c["data"]["roots"][0].update(modalty="MR"),
        "data.roots.0.modalty is not known: did you mean modality?",
    ),
    "unknown key in a task": (
        lambda c: c["tasks"]["side"].update(crop_voxel=[1, 1, 1]),
        "tasks.side.crop_voxel is not known: did you mean crop_voxels?",
    ),
    "a method that the backbone has no place for": (
        lambda c: c.update(model={"name": "resenc"}, finetune={"methods": [{"name": "prompts"}]}),
        "finetune.methods has prompts, which works on the blocks of a transformer, and model is",
    ),
    "a segmentation that no method serves": (
        lambda c: c.update(finetune={"methods": [{"name": "attentive"}]}),
        "tasks.tissue is a segmentation, which none of finetune.methods serves",
    ),
    "robustness of networks that are not kept": (
        lambda c: c.update(robustness={}),
        "robustness evaluates the fine-tuned networks again: set finetune.keep_networks to all",
    ),
    "a method given twice": (
        lambda c: c.update(finetune={"methods": [{"name": "lora"}, {"name": "lora", "rank": 2}]}),
        "methods is ['lora', 'lora']: give each once",
    ),
    "an encoder called as random weights are": (
        lambda c: c.update(evaluate={"encoders": {"random": ""}}),
        "encoders.random means random weights: choose another name",
    ),
    "a target that is no class's name alone": (
        lambda c: c["tasks"]["side"].update(classes={0: "1", 1: "2"}),
        "tasks.side: classes has the name 1, which is the value of another class",
    ),
    "two classes of one name": (
        lambda c: c["tasks"]["tissue"].update(classes={1: "dark", 2: "dark "}),
        "tasks.tissue: classes.1 is dark, as another class is",
    ),
    "a class called as a missing value": (
        lambda c: c["tasks"]["side"].update(classes={0: "none", 1: "mild"}),
        "tasks.side: classes has the class none, whose value or name means in a table that nothing",
    ),
    "subgroups of unknown metadata": (
        lambda c: c["evaluate"].update(subgroups=["sidee"]),
        "evaluate.subgroups names sidee: did you mean side?",
    ),
    "training scans by unknown metadata": (
        lambda c: c["tasks"]["side"].update(train_on={"sitee": ["a"]}),
        "tasks.side.train_on names sitee: did you mean site?",
    ),
    "strata of unknown metadata": (
        lambda c: c["data"]["splits"].update(stratify=["moality"]),
        "data.splits.stratify names moality: did you mean modality?",
    ),
    "a target that the table is not said to have": (
        lambda c: (
            c["data"].update(table="t.csv", targets=["sex"]),
            c["tasks"]["side"].update(target="sexx"),
        ),
        "tasks.side.target is sexx, which is not known: did you mean sex?",
    ),
    "targets without a table": (
        lambda c: c["data"].update(targets=["sex"]),
        "data: targets are columns of a `table`",
    ),
    "a target that says who a subject is": (
        lambda c: c["data"].update(table="t.csv", targets=["subject"]),
        "data: targets has subject, which has a meaning of its own",
    ),
    "an output folder of an unset variable": (
        lambda c: c.update(output="$NOT_SET_ANYWHERE/out"),
        "uses the environment variable NOT_SET_ANYWHERE, which is not set",
    ),
    "an output folder of an unset variable with a default": (
        lambda c: c.update(output="${NOT_SET:-/tmp}/out"),
        "uses the environment variable NOT_SET:-/tmp, which is not set",
    ),
    "an output folder of nobody": (
        lambda c: c.update(output="~nobody_of_this_name/out"),
        "begins with the home folder of a user who is not known here",
    ),
    "braces in the output folder": (
        lambda c: c.update(output="out/{v1}"),
        "output is out/{v1}, in which braces would be wildcards of Snakemake",
    ),
    "another version": (lambda c: c.update(format=99), "format is 99, this version reads 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(study_file, mistake):
    change, sentence = MISTAKES[mistake]
    with pytest.raises(UserError) as error:
        load_study(changed(study_file, change))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value) and str(study_file) in str(error.value)


def test_the_output_folder_is_expanded_as_other_paths_are(study_file, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("SCRATCH", "/scratch")
    for output, folder in (("~/out", "/home/ann/out"), ("${SCRATCH}/out", "/scratch/out")):
        changed(study_file, lambda c, output=output: c.update(output=output))
        assert str(load_study(study_file).folder) == folder


def test_a_section_with_nothing_behind_it_has_its_defaults(study_file):
    study_file.write_text(study_file.read_text() + "\nprobe:\nstore:\n")
    assert load_study(study_file).probe == Study.model_fields["probe"].default


def test_a_key_given_twice_is_refused(study_file):
    study_file.write_text(study_file.read_text() + "\nname: other\n")
    with pytest.raises(UserError, match="name is given twice"):
        load_study(study_file)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [unclosed"])
def test_what_is_no_study_is_refused(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"study\.yaml"):
        load_study(path)


def test_a_missing_study_names_those_there_are(tmp_path):
    with pytest.raises(UserError, match=r"demo\.yaml"):
        load_study(tmp_path / "none.yaml")


def test_show_prints_a_study_that_loads_to_the_same(study_file, tmp_path):
    shown = run_forked("stages", ["config", "--show", "--config", study_file]).stdout
    again = study_file.with_name("again.yaml")
    again.write_text(shown)
    assert load_study(again) == load_study(study_file)
    assert "learning_rate: 0.001" in shown


def test_the_schema_describes_every_field():
    text = json.dumps(Study.model_json_schema())
    assert "learning_rate" in text
    for name, definition in Study.model_json_schema()["$defs"].items():
        for key, field in definition.get("properties", {}).items():
            plain = "description" in field or "const" in field or "$ref" in json.dumps(field)
            assert plain, f"{name}.{key} has no line of help"


def test_the_hash_of_a_section_sees_it_and_nothing_else(study_file):
    before = load_study(study_file)
    after = load_study(changed(study_file, lambda c: c["training"].update(steps=7)))
    assert before.sections_hash(("views",), {}) == after.sections_hash(("views",), {})
    assert before.sections_hash(("training",), {}) != after.sections_hash(("training",), {})
    weight = ("data.roots.*.weight",)
    elsewhere = {"tissue": {"path": "elsewhere"}}
    labels = load_study(
        changed(study_file, lambda c: c["data"]["roots"][0].update(labels=elsewhere))
    )
    heavier = load_study(changed(study_file, lambda c: c["data"]["roots"][0].update(weight=2.0)))
    assert labels.sections_hash(weight, {}) == before.sections_hash(weight, {})
    assert heavier.sections_hash(weight, {}) != before.sections_hash(weight, {})


def test_a_task_may_have_settings_of_its_own(study_file):
    own = {"steps": 7, "methods": [{"name": "lora"}]}
    changed(study_file, lambda c: c["tasks"]["side"].update(stages=["finetune"], finetune=own))
    study = load_study(study_file)
    side = [run.stage for run in evaluation_runs(study) if run.wildcards["task"] == "side"]
    assert side == ["finetune"]
    settings, others = study.finetune_of("side"), study.finetune_of("tissue")
    assert (settings.steps, [m.name for m in settings.methods]) == (7, ["lora"])
    assert others == study.finetune and settings.batch_size == study.finetune.batch_size
    assert study.model_dump(mode="json")["tasks"]["side"]["finetune"] == own


def test_settings_of_one_task_leave_the_other_unchanged(study_file):
    before = load_study(study_file)
    changed(study_file, lambda c: c["tasks"]["side"].update(finetune={"steps": 7}))
    after = load_study(study_file)
    reads = ("tasks.{task}", "finetune")
    for task, same in (("side", False), ("tissue", True)):
        hashes = {study.sections_hash(reads, {"task": task}) for study in (before, after)}
        assert (len(hashes) == 1) == same

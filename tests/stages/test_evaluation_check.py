"""What a study declares for its evaluations is asked of the inventory, before any pretraining."""

import shutil
import sys
from dataclasses import replace

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.inventory import Inventory
from stages.commands.config import print_config
from stages.commands.estimate import print_estimates
from stages.core.layout import MANIFEST, inventory_table
from stages.core.records import read_completion
from stages.core.runner import run_stage
from stages.core.study import Study
from stages.core.study_file import load_study
from stages.evaluation_check import (
    check_before_inventory,
    check_evaluations,
    check_label_values,
    check_scans,
)
from tests.export.conftest import save_random_bundle

SIDE = {"kind": "classification", "title": "T", "target": "side", "classes": {0: "l", 1: "r"}}
NUMBER = {"kind": "regression", "title": "T", "target": "side"}
TISSUE = {"kind": "segmentation", "title": "T", "label": "tissue", "classes": {1: "d", 2: "b"}}
NUMBER_OF_A_SCAN = {"kind": "number", "mean": 50, "std": 10}
CROPS = TISSUE | {"kind": "crop_classification"}


@pytest.fixture(scope="module")
def scans(study):
    """Six scans with their labels: of the subjects 0 to 3 in train and 4 and 5 in test."""
    found = Inventory.read(inventory_table(study)).accepted_scans
    return sorted(found, key=lambda scan: (scan.split == "test", scan.targets["side"]))


def with_task(study, task, **sections):
    """The study with this task alone, and with other sections."""
    settings = study.model_dump(exclude_unset=True) | {"tasks": {"t": task}} | sections
    return Study.model_validate(settings)


def with_targets(scans, *values):
    """The scans with these values of `side`, None where a scan has none."""
    return [
        replace(scan, targets={} if value is None else {"side": value})
        for scan, value in zip(scans, values, strict=True)
    ]


@pytest.mark.parametrize("task", [SIDE, NUMBER, TISSUE, CROPS], ids=lambda task: task["kind"])
def test_a_task_that_can_be_evaluated_passes(study, scans, task):
    check_scans(with_task(study, task), scans)


@pytest.mark.parametrize(
    ("values", "task", "sentence"),
    [
        ("001101", SIDE | {"classes": {0: "l", 1: "r", 2: "x"}}, "no labelled subject shows 'x'"),
        ("000001", SIDE, "the training subjects show only 'l', and classification needs two"),
        ("001121", SIDE | {"classes": {0: "l", 1: "r", 2: "x"}}, "scored subjects show 'x'"),
        ("222222", SIDE, "target 'side' is 2, none of which is in classes: 0: l, 1: r"),
        ((*"0011", None, None), SIDE, "no labelled scan of split test to score"),
        ((None, None, None, None, *"01"), SIDE, "no labelled scan of split train to learn from"),
        ((None,) * 6, SIDE, "unknown target 'side'"),
        (("1", "2", "3", "inf", "5", "6"), NUMBER, "'inf', which is no number up to 1e+30"),
        (("1", "2", "3", "x", "5", "6"), NUMBER, "'x', which is no number"),
        ("111123", NUMBER, "the number is 1 for all training subjects"),
        ("123411", NUMBER, "the number is 1 for all scored subjects"),
        (("True", "True", "False", "True", "False", "True"), SIDE, "is False, True, none of which"),
    ],
)
def test_a_target_that_no_evaluation_can_use_is_told(study, scans, values, task, sentence):
    with pytest.raises(UserError, match="Task 'T': ") as refused:
        check_scans(with_task(study, task), with_targets(scans, *values))
    assert sentence in str(refused.value)


@pytest.mark.parametrize("task", [TISSUE, CROPS], ids=lambda task: task["kind"])
def test_a_label_value_that_no_scan_shows_is_told(study, scans, task):
    wrong = with_task(study, task | {"classes": {1: "d", 2: "b", 7: "x"}})
    with pytest.raises(UserError, match="no labelled subject shows 'x'"):
        check_scans(wrong, scans)
    one = [replace(s, label_classes={"tissue": [1] if s.split == "train" else [2]}) for s in scans]
    with pytest.raises(UserError, match="training subject"):
        check_scans(with_task(study, task), one)
    none = [replace(s, label_classes={"tissue": [9]}) for s in scans]
    with pytest.raises(UserError, match="the training subjects show none of the classes"):
        check_scans(with_task(study, task), none)
    shown = {"train": [1, 2], "test": [9]}
    unseen = [replace(scan, label_classes={"tissue": shown[scan.split]}) for scan in scans]
    with pytest.raises(UserError, match="no scored subject shows any of the classes"):
        check_scans(with_task(study, task), unseen)
    unlabelled = [replace(s, labels={"tissue": s.split == "train"}) for s in scans]
    with pytest.raises(UserError, match="no labelled scan of split test to score"):
        check_scans(with_task(study, task), unlabelled)


def test_a_label_for_crops_to_lie_on_that_is_empty_is_told(study, scans):
    centred = with_task(study, SIDE | {"crop_centre": "tissue"})
    check_scans(centred, scans)
    empty = [replace(scans[0], label_classes={"tissue": []}), *scans[1:]]
    with pytest.raises(UserError, match=f"label 'tissue' of scan {scans[0].id} is empty where"):
        check_scans(centred, empty)


@pytest.mark.parametrize("task", [TISSUE, CROPS, SIDE | {"crop_centre": "tissue"}], ids=repr)
def test_a_mask_without_classes_that_a_task_reads_is_told(study, scans, task):
    check_label_values(with_task(study, task), scans)
    mask = [replace(scans[0], label_classes={}), *scans[1:]]
    check_label_values(with_task(study, SIDE), mask)
    with pytest.raises(UserError, match=f"'tissue' of scan {scans[0].id} is a mask whose values"):
        check_label_values(with_task(study, task), mask)


def test_a_volume_of_labels_that_is_0_everywhere_is_told(study, scans):
    volume = {"kind": "regression", "title": "T", "label": "tissue", "classes": {7: "x"}}
    with pytest.raises(UserError, match="the number is 0 for all training subjects"):
        check_scans(with_task(study, volume), scans)
    check_scans(with_task(study, volume | {"classes": {2: "b"}}), scans)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tasks": {"t": SIDE | {"train_on": {"side": ["7"]}}}}, "train_on.side: no scan has '7'"),
        ({"evaluate": {"subgroups": ["site"]}}, "evaluate.subgroups: no scan has 'site'"),
        ({"evaluate": {"subjects": [2, 5]}}, "evaluate.subjects asks for 5 labelled subjects"),
        ({"finetune": {"subjects": [20, 0]}}, "finetune.subjects asks for 20 labelled subjects"),
        ({"tasks": {"t": TISSUE | {"external_predictions": "tissue2"}}}, "has no label 'tissue2'"),
        (
            {
                "robustness": {"corruptions": [{"name": "metal_streak"}]},
                "finetune": {"keep_networks": "all"},
            },
            "none of robustness.corruptions is of its scans' modality, MR",
        ),
        (
            {
                "objective": {
                    "name": "hybrid",
                    "contrast": {"similar_by": {"site": "equal"}, "subject_weight": 1},
                },
                "training": {"batch_size": 16},
            },
            "similar_by.site: no scan has 'site'",
        ),
    ],
)
def test_what_fits_nobody_is_told(study, scans, changes, sentence):
    settings = study.model_dump(exclude_unset=True) | {"tasks": {"t": SIDE}} | changes
    settings["data"]["roots"][0]["site"] = {"pattern": "(?P<site>person)"}
    settings["data"]["roots"][0]["labels"]["tissue2"] = {"path": "elsewhere"}
    with pytest.raises(UserError) as refused:
        check_scans(Study.model_validate(settings), scans)
    assert sentence in str(refused.value)


def test_a_value_of_a_held_out_scan_that_the_gate_cannot_read_is_refused(study, scans):
    """Pretraining reads that of training scans alone, and would be over by then."""
    objective = {
        "name": "custom",
        "terms": [
            {"name": "reconstruction"},
            {"name": "target_prediction", "targets": {"age": NUMBER_OF_A_SCAN}},
        ],
    }
    ages = ("40", "60", "50", "about fifty", "", "")
    aged = [
        replace(scan, targets={**scan.targets, "age": age})
        for scan, age in zip(scans, ages, strict=True)
    ]
    aged[3] = replace(aged[3], split="val")
    promote = {"registry": "r", "name": "head", "gain": {"t": 0.1}}
    data = study.model_dump(exclude_unset=True)["data"] | {"table": "x.csv", "targets": ["age"]}
    sections = {"objective": objective, "data": data}
    check_scans(with_task(study, SIDE, **sections), aged)
    with pytest.raises(
        UserError, match=r"predicts age, whose value of scan .* is no number"
    ) as refusal:
        check_scans(with_task(study, SIDE, **sections, promote=promote), aged)
    assert "fifty" not in str(refusal.value)


@pytest.mark.parametrize(
    ("package", "sections"),
    [
        ("peft", {"finetune": {"methods": [{"name": "lora"}]}}),
        (
            "torchio",
            {
                "finetune": {"keep_networks": "all"},
                "robustness": {"corruptions": [{"name": "blur"}]},
            },
        ),
    ],
)
def test_a_package_that_is_not_installed_is_told(study, scans, package, sections, monkeypatch):
    chosen = with_task(study, SIDE, **sections)
    check_scans(chosen, scans)
    monkeypatch.setitem(sys.modules, package, None)  # as Python has it where one is not found
    with pytest.raises(UserError, match=f"needs the package {package}, which is not installed"):
        check_scans(chosen, scans)


def test_budgets_of_the_default_are_for_data_of_any_size(study, scans):
    check_scans(with_task(study, SIDE, evaluate={}), scans)


def test_without_scans_to_train_on_or_to_score_it_stops(study, scans):
    with pytest.raises(UserError, match="no labelled scan of split test to score"):
        check_scans(study, [replace(scan, split="train") for scan in scans])
    held_out = [replace(scan, split="test") for scan in scans]
    with pytest.raises(UserError, match="No usable scan is of the split train"):
        check_scans(study.model_copy(update={"tasks": {}}), held_out)


def test_an_encoder_to_compare_with_is_refused_before_the_own_one_is_pretrained(study, tmp_path):
    other = {"encoders": {"own": "", "other": str(save_random_bundle(tmp_path / "encoder"))}}
    compared = with_task(study, SIDE, evaluate=other)
    with pytest.raises(UserError, match="other does not say which subjects it was trained on"):
        check_evaluations(compared)
    start = {"decoder": {"name": "unet", "start": "pretrained"}}
    mae = {"name": "mae", "reconstruction": {"decoder": "unet"}}
    alike = with_task(study, TISSUE, evaluate=other, finetune=start, objective=mae)
    with pytest.raises(UserError, match="'other' was pretrained without a U-Net's decoder"):
        check_evaluations(alike)
    wider = with_task(study, SIDE, evaluate=other, model={"preset": "S"})
    with pytest.raises(UserError, match="other was trained with another `model` than this study"):
        check_evaluations(wider)
    alone = {"encoders": {"other": other["encoders"]["other"]}}
    with pytest.raises(UserError, match="other was trained with another `model` than this study"):
        check_before_inventory(with_task(study, SIDE, evaluate=alone, model={"preset": "S"}))


def test_folders_are_named_by_classes_and_need_no_renaming(study_file):
    images = study_file.parent / "raw/images"
    for path in sorted(images.iterdir()):
        folder = images / ("DCM" if int(path.name[6]) % 2 else "NOR")
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    settings = load_study(study_file).model_dump(exclude_unset=True)
    (root,) = settings["data"]["roots"]
    root["targets"], root["labels"] = {"group": {"pattern": "^(?P<group>[A-Z]+)/"}}, {}
    heart = SIDE | {"target": "group", "classes": {"healthy": "NOR", "dilated": "DCM"}}
    changed = Study.model_validate(settings | {"tasks": {"heart": heart}})
    changed._source_folder = study_file.parent
    run_stage("inventory", changed, {})
    found = Inventory.read(inventory_table(changed)).accepted_scans
    assert sorted(scan.targets["group"] for scan in found) == ["DCM"] * 3 + ["NOR"] * 3


def test_before_the_inventory_headers_and_tables_tell_as_far_as_they_can(study_file, capsys):
    text = study_file.read_text()
    study_file.write_text(text.replace("{0: left, 1: right}", "{0: left, 1: right, 2: both}"))
    sentence = "Task 'Side': no labelled subject shows 'both'"
    with pytest.raises(UserError, match=sentence):
        print_config(study_file, show=False, schema=False)
    with pytest.raises(UserError, match=sentence):
        print_estimates(load_study(study_file), None)
    (study_file.parent / "scans.csv").write_bytes(b"PAR1")
    study_file.write_text(text.replace("  splits:", "  table: scans.csv\n  splits:"))
    with pytest.raises(UserError, match=r"scans\.csv has no column `path` in its first line"):
        print_config(study_file, show=False, schema=False)
    study_file.write_text(text)
    print_config(study_file, show=False, schema=False)
    assert "is valid: tiny, 2 tasks." in capsys.readouterr().out
    shutil.rmtree(study_file.parent / "raw")  # where nothing is known, nothing is refused
    print_config(study_file, show=False, schema=False)


def test_the_inventory_stops_and_is_not_built_again_when_the_task_is_corrected(study_file, capsys):
    text = study_file.read_text()
    study_file.write_text(text.replace("{1: dark, 2: bright}", "{1: dark, 3: bright}"))
    study = load_study(study_file)
    sentence = "Task 'Tissue': no labelled subject shows 'bright'"
    for _ in range(2):
        with pytest.raises(UserError, match=sentence):
            run_stage("inventory", study, {})
    out = study.stage_folder("inventory", {})
    assert read_completion(out) and not (out / MANIFEST).exists()
    with pytest.raises(UserError, match=sentence):
        run_stage("preprocess", study, {})
    study_file.write_text(text)
    corrected = load_study(study_file)
    capsys.readouterr()
    run_stage("inventory", corrected, {})
    assert "inventory: nothing to do" in capsys.readouterr().out
    assert (out / MANIFEST).exists()
    check_evaluations(corrected)

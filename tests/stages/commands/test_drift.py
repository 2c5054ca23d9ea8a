"""`ssl-pipeline drift` on a study to which scans are added."""

import csv

import nibabel as nib
import numpy as np
import pytest
import yaml

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from stages.commands.clean import clean_study
from stages.commands.drift import find_drift
from stages.commands.registry import add_encoder
from stages.core import layout
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from stages.domain_measures import DomainMeasures
from tests.conftest import STUDY, real_volume
from tests.stages.conftest import copy_study, run_cli

SUBJECTS = 12  # in each group
ALIAS = {"name": "head", "gain": {"side": 0.05}, "places": 2 * SUBJECTS}


def add_people(folder, first, thickness=1):
    """Parts of a real head at random places; the middle of so many slices is one that is kept."""
    whole = real_volume()
    voxels, affine = np.asarray(whole.dataobj), whole.affine @ np.diag([1, 1, thickness, 1])
    for number in range(first, first + SUBJECTS):
        x, y = np.random.default_rng(number).integers([10, 6], [80, 54])
        part = np.ascontiguousarray(voxels[x : x + 34, y : y + 34, ::thickness])
        nib.save(nib.Nifti1Image(part, affine), folder / f"person{number}.nii.gz")


def prepare(file):
    for name in ("inventory", "preprocess"):
        run_stage(name, load_study(file), {})
    return load_study(file)


@pytest.fixture(scope="module")
def champion(tmp_path_factory):
    """A study of 12 training and 12 held-out people whose encoder is the champion; use a copy."""
    folder = tmp_path_factory.mktemp("drift") / "first"
    images = folder / "raw/images"
    images.mkdir(parents=True)
    add_people(images, 0)
    add_people(images, SUBJECTS)
    (folder / "val.txt").write_text("".join(f"{n}\n" for n in range(SUBJECTS, 2 * SUBJECTS)))
    content = yaml.safe_load(STUDY.format(folder=folder))
    content["data"]["splits"]["lists"] = {"val": "val.txt"}
    del content["data"]["roots"][0]["labels"], content["tasks"]["tissue"]
    content["evaluate"]["split"] = "val"
    content["training"]["steps"] = 2
    content["promote"] = {"registry": f"{folder}/registry", **ALIAS}
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    run_stage("pretrain", prepare(file), {})
    study = load_study(file)
    add_encoder(study, folder / "registry", "head", "champion", "the first")
    DomainMeasures(load_study(file))  # freezes the bank of the domain
    return file


@pytest.fixture
def month(champion, tmp_path):
    """A copy of that study."""
    return copy_study(champion, tmp_path / "month")


def rows_of(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_nothing_is_due_where_nothing_came(month, capsys):
    assert find_drift(load_study(month)) == 0
    assert "no scan has come that head@champion was not trained on" in capsys.readouterr().out


def test_more_scans_of_the_same_kind_ask_for_no_update(month):
    add_people(month.parent / "raw/images", 2 * SUBJECTS)
    study = prepare(month)
    done = run_cli("drift", "--config", month)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no update is due: 12 new scans" in done.stdout
    rows = rows_of(layout.drift_table(study))
    assert [row["measure"] for row in rows] == ["features", "headers", "verdicts"]
    for row in rows:
        assert (row["new subjects"], row["known subjects"], row["drift"]) == ("12", "12", "no")


def test_thick_slices_ask_for_an_update_and_are_listed_by_code(month, capsys):
    images = month.parent / "raw/images"
    add_people(images, 2 * SUBJECTS)
    add_people(images, 3 * SUBJECTS, thickness=2)
    study = prepare(month)
    done = run_cli("drift", "--config", month)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "an update is due" in done.stdout and "head in headers" in done.stdout
    listed = rows_of(layout.drift_scans(study))
    assert len(listed) == 2 * SUBJECTS
    origins = study.pseudonyms.origins
    people = [int(origins[row["scan"]].path.split("person")[1].split(".")[0]) for row in listed]
    assert set(people[:SUBJECTS]) == set(range(3 * SUBJECTS, 4 * SUBJECTS))
    assert listed[0]["scan"] in done.stdout and "spacing IS mm" in listed[0]["unusual headers"]
    written = layout.drift_scans(study).read_text() + layout.drift_table(study).read_text()
    page = layout.drift_page(study).read_text()
    assert "An update is due: new scans are unlike those that head@champion knows" in page
    assert all(row["scan"] in page for row in listed)
    assert "person" not in written + done.stdout + page
    before = written
    assert find_drift(study) == 4  # from embeddings that are known by now
    assert before == layout.drift_scans(study).read_text() + layout.drift_table(study).read_text()
    clean_study(study, remove_all=True, assume_yes=True)
    assert not (study.folder / layout.DRIFT_FOLDER).exists()


def test_a_champion_of_other_preprocessing_is_named_as_the_study_names_it(month):
    content = yaml.safe_load(month.read_text())
    month.write_text(yaml.safe_dump({**content, "preprocess": {"foreground": "auto"}}))
    with pytest.raises(
        UserError, match=r"^head@champion of .* was trained with another `prep"
    ) as e:
        find_drift(load_study(month))
    assert "evaluate" not in str(e.value)


@pytest.mark.parametrize(
    ("promote", "message"),
    [
        (None, "has no section `promote`"),
        ({**ALIAS, "name": "chest"}, "has no chest@champion yet: run the stage promote"),
    ],
)
def test_without_a_champion_it_is_one_sentence(month, promote, message):
    content = yaml.safe_load(month.read_text())
    own = content.pop("promote")
    if promote:
        content["promote"] = {"registry": own["registry"], **promote}
    month.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=message):
        find_drift(load_study(month))


def test_a_champion_of_other_scans_is_one_sentence(month):
    study = load_study(month)
    bundle = study.folder.parent / "registry/entries"
    (entry,) = bundle.iterdir()
    training_subjects.write(entry / "encoder", ["elsewhere"], (), "another salt")
    with pytest.raises(UserError, match="None of the scans that head@champion was trained on"):
        find_drift(study)
    (entry / "encoder" / training_subjects.FILE_NAME).unlink()
    with pytest.raises(UserError, match="does not say which scans it was trained on"):
        find_drift(study)

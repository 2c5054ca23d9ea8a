"""`ssl-pipeline next`: which scans to label, and the folder of their images."""

import csv
import stat
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.task_model.bundle import load_model
from ssl_pipeline.preprocess.prepare import PreparedVolume
from ssl_pipeline.review.next_labels.work_folder import (
    FINISHED_LABELS,
    read_readers,
    write_work_folder,
)
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.volumes.pseudonyms import Origin
from stages.commands.clean import clean_study
from stages.commands.next_labels import choose_next
from stages.core import layout
from stages.core.study_file import load_study

UNLABELLED = 3  # of the four training subjects, in the task "tissue"


@pytest.fixture
def partly_labelled(copied):
    """The whole study, in which only the first training subject has a label of tissue."""
    study = load_study(copied)
    path = layout.catalog_table(study)
    train = [e.id for e in Catalog.read(path).entries if e.split == "train"]
    hidden = set(train[-UNLABELLED:])
    entries = [
        replace(entry, labels={"tissue": entry.id not in hidden})
        for entry in Catalog.read(path).entries
    ]
    Catalog(tuple(entries)).write(path)
    return study, hidden


def listed(study, task="tissue"):
    with open(layout.work_list(study, task)) as file:
        return list(csv.DictReader(file))


def test_only_training_scans_without_a_label_are_listed_in_codes(partly_labelled, capsys):
    study, hidden = partly_labelled
    choose_next(study, "tissue", UNLABELLED, "random")
    assert "3 of 3 scans without a label" in capsys.readouterr().out
    rows = listed(study)
    assert {row["scan"] for row in rows} == hidden
    assert [row["place"] for row in rows] == ["1", "2", "3"]
    assert {row["root"] for row in rows} == {"head"}
    assert "person" not in layout.work_list(study, "tissue").read_text()
    choose_next(study, "tissue", 2, "random")
    first = listed(study)
    choose_next(study, "tissue", 2, "random")
    assert listed(study) == first, "the same seed and study"


def test_the_folder_has_the_scans_and_keeps_labels(partly_labelled):
    study, _ = partly_labelled
    choose_next(study, "tissue", 1, "random")
    (row,) = listed(study)
    folder = layout.work_folder(study, "tissue")
    (image,) = folder.glob("*.nii.gz")
    assert image.name == f"{row['scan']}.nii.gz"
    origin = study.pseudonyms.origins[row["scan"]]
    assert nib.load(image).shape == nib.load(origin.path).shape
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with open(folder / "origins.csv") as file:
        assert [each["path"] for each in csv.DictReader(file)] == [origin.path]
    label = folder / FINISHED_LABELS / image.name
    label.write_bytes(b"drawn by hand")
    choose_next(study, "tissue", 1, "random")
    assert listed(study)[0]["scan"] != row["scan"], "a finished label counts at once"
    assert label.read_bytes() == b"drawn by hand" and image.exists()
    choose_next(study, "tissue", 2, "random")
    assert {path.name[:12] for path in folder.glob("*.nii.gz")} == {
        row["scan"],
        *(each["scan"] for each in listed(study)),
    }


def test_readers_of_lists_are_written_down_and_stay(partly_labelled):
    study, hidden = partly_labelled
    choose_next(study, "tissue", 1, "random", "anna")
    (first,) = listed(study)
    folder = layout.work_folder(study, "tissue")
    assert read_readers(folder) == {first["scan"]: "anna"}
    choose_next(study, "tissue", UNLABELLED, "random", "ben")
    assert read_readers(folder) == dict.fromkeys(hidden, "ben")
    choose_next(study, "tissue", 1, "random")
    clean_study(study, remove_all=True, assume_yes=True)
    assert read_readers(folder) == dict.fromkeys(hidden, "ben")
    with pytest.raises(UserError, match="--reader is 'Anna M': give up to 32 letters"):
        choose_next(study, "tissue", 1, "random", "Anna M")


def test_clean_removes_lists_and_links_and_no_label(partly_labelled):
    study, _ = partly_labelled
    choose_next(study, "tissue", 1, "typical")
    folder = layout.work_folder(study, "tissue")
    (image,) = folder.glob("*.nii.gz")
    label = folder / FINISHED_LABELS / image.name
    label.write_bytes(b"drawn by hand")
    raw = image.resolve()
    clean_study(study, remove_all=True, assume_yes=True)
    assert label.exists() and raw.exists()
    assert [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()] == [label]
    assert not layout.next_folder(study).exists()


def test_embeddings_are_computed_once(partly_labelled, capsys):
    study, hidden = partly_labelled
    for strategy in ("typical", "coverage"):
        choose_next(study, "tissue", 2, strategy)
        assert {row["scan"] for row in listed(study)} < hidden
        assert {row["strategy"] for row in listed(study)} == {strategy}
    assert "4 scans of an earlier start known" in capsys.readouterr().out


def test_entropy_is_that_of_the_models_probabilities(partly_labelled):
    study, hidden = partly_labelled
    path = layout.catalog_table(study)
    entries = Catalog.read(path).entries
    Catalog(tuple(replace(e, targets={}) if e.id in hidden else e for e in entries)).write(path)
    choose_next(study, "side", UNLABELLED, "entropy")
    model = load_model(study.stage_folder("finetune", {"task": "side"}) / layout.MODEL_FOLDER)
    catalog = Catalog.read(path)
    reader = CropReader(layout.volumes_folder(study), catalog)
    volumes = {
        code: PreparedVolume(reader.read_volume(code), catalog.by_id(code).meta) for code in hidden
    }
    found = {code: model.predictor.entropy(volume) for code, volume in volumes.items()}
    assert [row["scan"] for row in listed(study, "side")] == sorted(
        found, key=found.get, reverse=True
    )


def test_bad_questions_have_one_sentence_each(partly_labelled):
    study, _ = partly_labelled

    def refused(task="tissue", count=1, strategy="random"):
        with pytest.raises(UserError) as caught:
            choose_next(study, task, count, strategy)
        return str(caught.value)

    assert "no task 'tisue'; did you mean tissue?" in refused(task="tisue")
    assert "every training subject has a label" in refused(task="side")
    assert "--count is 4, and 3 scans of subjects without a label" in refused(count=4)
    assert "ask for 1 to 3" in refused(count=0)
    (study.stage_folder("finetune", {"task": "tissue"}) / "model/model.json").unlink()
    assert "has no model in" in refused(strategy="entropy")
    (study.encoder / "encoder.safetensors").unlink()
    assert "pretrain first, or take --strategy random" in refused(strategy="coverage")


def test_a_scan_of_another_format_is_written_as_nifti(tmp_path):
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nib.save(nib.Nifti1Pair(voxels, np.diag([1.0, 2.0, 3.0, 1.0])), tmp_path / "pair.img")
    write_work_folder(tmp_path / "work", [Origin("0123456789ab", str(tmp_path / "pair.hdr"))])
    written = nib.load(tmp_path / "work/0123456789ab.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), voxels)
    assert np.allclose(written.affine, np.diag([1.0, 2.0, 3.0, 1.0]))


def test_a_scan_that_is_gone_is_refused_by_its_code(tmp_path):
    with pytest.raises(UserError, match="Scan 0123456789ab is not there"):
        write_work_folder(tmp_path / "work", [Origin("0123456789ab", str(tmp_path / "none.mha"))])

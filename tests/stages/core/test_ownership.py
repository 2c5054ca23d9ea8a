"""An output folder belongs to one study: another with this `output` is refused."""

import pytest

from ssl_pipeline.errors import UserError
from stages.core.layout import study_record
from stages.core.ownership import claim_output
from stages.core.runner import run_stage
from stages.core.study_file import load_study


def write_variant(file, name, output):
    text = file.read_text().replace("name: tiny", f"name: {name}")
    other = file.with_name(f"{name}.yaml")
    other.write_text(text.replace(f"output: {file.parent}/out", f"output: {output}"))
    return other


def test_the_first_stage_makes_the_output_folder_its_studys_own(study_file):
    run_stage("inventory", load_study(study_file), {})
    load_study(study_file)
    with pytest.raises(UserError, match="belongs to the study tiny, and this one is other"):
        load_study(write_variant(study_file, "other", study_file.parent / "out"))


def test_another_way_to_write_the_folder_is_the_same_folder(study_file):
    claim_output(load_study(study_file))
    out = study_file.parent / "out"
    (study_file.parent / "link").symlink_to(out)
    for other in (study_file.parent / "link", f"{out}/", out / ".." / "out"):
        with pytest.raises(UserError, match="give this one another `output`"):
            load_study(write_variant(study_file, "other", other))
    load_study(write_variant(study_file, "other", study_file.parent / "elsewhere"))


def test_a_study_that_was_loaded_before_the_other_began_is_refused_too(study_file):
    late = load_study(write_variant(study_file, "late", study_file.parent / "out"))
    claim_output(load_study(study_file))
    with pytest.raises(UserError, match="belongs to the study tiny"):
        run_stage("inventory", late, {})
    assert not (study_file.parent / "out/inventory").exists()


def test_a_renamed_study_goes_on_once_the_record_is_removed(study_file):
    claim_output(load_study(study_file))
    renamed = write_variant(study_file, "renamed", study_file.parent / "out")
    record = study_record(load_study(study_file))
    with pytest.raises(UserError, match=f"remove {record} if it is the same study"):
        load_study(renamed)
    record.unlink()
    claim_output(load_study(renamed))
    assert "renamed" in record.read_text()


def test_a_folder_within_the_output_of_another_study_is_refused(study_file):
    claim_output(load_study(study_file))
    with pytest.raises(UserError, match="lies in the output of the study tiny"):
        load_study(write_variant(study_file, "inner", study_file.parent / "out/probe/inner"))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("output: {}/out\nprivate: {}/out/own", "paths of origin would lie in"),
        ("output: {}/own/tiny\nprivate: {}/own", "paths of origin would lie in"),
        ("output: {}/raw/images/build", "output lies in the root head"),
    ],
)
def test_results_private_files_and_raw_scans_lie_apart(study_file, line, sentence):
    text, folder = study_file.read_text(), study_file.parent
    study_file.write_text(text.replace(f"output: {folder}/out", line.replace("{}", str(folder))))
    with pytest.raises(UserError, match=sentence):
        load_study(study_file)

"""What a command says, and the code that it ends with, where something is in its way."""

import pytest

from ssl_pipeline.errors import UserError
from stages.cli import main
from stages.core.dispatch import load_cluster
from stages.core.process import exit_code_of
from stages.core.study_file import load_study


@pytest.mark.parametrize("command", ["inventory", "preprocess"])
def test_an_output_that_refuses_the_account_is_one_sentence(command, study_file, capsys):
    refused = "/sys/study"  # where not even root makes a folder
    study_file.write_text(study_file.read_text().replace(f"{study_file.parent}/out", refused))
    assert main([command, "--config", str(study_file)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "/sys/study" in said
    assert "refuses this account" in said and "give the study another `output`" in said


@pytest.mark.parametrize("lies_there", ["study.json/", "inventory"])
def test_a_folder_in_place_of_a_file_or_a_file_of_a_folder_is_one_sentence(
    lies_there, study_file, capsys
):
    place = study_file.parent / "out" / lies_there
    place.parent.mkdir(exist_ok=True)
    place.mkdir() if lies_there.endswith("/") else place.touch()
    assert main(["inventory", "--config", str(study_file)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(place) in said and "move that away" in said


def test_an_interrupted_command_ends_with_what_to_do(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert exit_code_of("embed", interrupted) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "embed: interrupted; run the same command again to go on."


def test_profiles_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_cluster("slurm") is not None


def test_a_relative_study_is_told_with_the_folder_that_it_was_sought_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"at mine.yaml in {tmp_path}, from which its path is"):
        load_study(tmp_path.relative_to(tmp_path) / "mine.yaml")

"""Names of sequences: by the times in a header, by BIDS, by patterns and a table; one spelling."""

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.volumes.bids import parse_bids
from ssl_pipeline.volumes.readers import find_sources
from tests.volumes.inventory_helpers import build, by_name, data_of, with_noise
from tests.volumes.volume_writers import save_dicom, save_enhanced, save_nifti

NO_AGENT = {"ContrastBolusAgent": ""}
SPIN, INVERSION, GRADIENT = {"ScanningSequence": "SE"}, ["SE", "IR"], {"ScanningSequence": "GR"}
HEADERS = {
    "T1": SPIN | {"EchoTime": 9.5, "RepetitionTime": 500},
    "T1c": SPIN | {"EchoTime": 9.5, "RepetitionTime": 500, "ContrastBolusAgent": "10ml"},
    "T2": SPIN | {"EchoTime": 92, "RepetitionTime": 4000, "ContrastBolusAgent": "none"},
    "PD": SPIN | {"EchoTime": 15, "RepetitionTime": 3000},
    "FLAIR": {"ScanningSequence": INVERSION, "EchoTime": 90, "RepetitionTime": 10000,
              "InversionTime": 2600},
    "STIR": {"ScanningSequence": INVERSION, "EchoTime": 40, "RepetitionTime": 4000,
             "InversionTime": 160},
    "T2star": GRADIENT | {"EchoTime": 20, "RepetitionTime": 700},
    "DWI": {"EchoTime": 80, "RepetitionTime": 5000, "DiffusionBValue": 1000.0},
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_times_and_agent_of_a_header_name_the_sequence(name, brain, tmp_path):
    save_dicom(tmp_path, brain.data[..., :9], brain.affine, **NO_AGENT | HEADERS[name])
    assert [source.sequence for source in find_sources(tmp_path)] == [name]


def test_an_inverted_gradient_echo_is_t1_weighted(brain, tmp_path):
    tags = NO_AGENT | {"EchoTime": 2.9, "RepetitionTime": 2300, "InversionTime": 900}
    save_dicom(tmp_path, brain.data[..., :9], brain.affine, ScanningSequence=["GR", "IR"], **tags)
    assert find_sources(tmp_path)[0].sequence == "T1"


@pytest.mark.parametrize(("agent", "name"), [("", "CT"), ("NO", "CT"), ("IMERON", "CTc")])
def test_a_ct_is_told_by_its_agent_alone(agent, name, brain, tmp_path):
    save_dicom(tmp_path, brain.data[..., :9], brain.affine, "CT", ContrastBolusAgent=agent)
    assert find_sources(tmp_path)[0].sequence == name


def test_a_header_without_times_names_none(brain, tmp_path):
    save_dicom(tmp_path, brain.data[..., :9], brain.affine, SeriesDescription="T1 of Ann")
    assert find_sources(tmp_path)[0].sequence == ""


def test_an_enhanced_file_has_its_times_in_groups(brain, tmp_path):
    echo = [("MREchoSequence", "EffectiveEchoTime", 92.0)]
    save_enhanced(tmp_path / "a.dcm", brain.data, brain.affine, repeats=echo, RepetitionTime=4000)
    assert find_sources(tmp_path)[0].sequence == "T2"


@pytest.mark.parametrize(
    ("path", "session", "sequence"),
    [
        ("sub-1/anat/sub-1_T1w.nii.gz", "only", "T1"),
        ("sub-1/ses-b/anat/sub-1_ses-b_ce-gad_T1w.nii", "b", "T1c"),
        ("sub-1/ses-b/anat/sub-1_ses-b_acq-x_FLAIR.nii", "b", "FLAIR"),
        ("sub-1/ct/sub-1_ct.nii.gz", "only", "CT"),
    ],
)
def test_bids_names_session_and_sequence(path, session, sequence):
    image = parse_bids(path)
    assert (image.session, image.sequence) == (session, sequence)


def save_sequences(folder, brain, *names):
    for number, name in enumerate(names):
        path = folder / "raw" / f"{name}_1.nii"
        save_nifti(path, with_noise(brain, number), brain.affine)


def test_patterns_of_a_root_name_sequences_and_the_table_goes_first(brain, tmp_path):
    save_sequences(tmp_path, brain, "mprage", "tirm", "other")
    (tmp_path / "scans.csv").write_text("path,sequence\nraw/tirm_1.nii,dark fluid\n")
    data = data_of(tmp_path, sequences={"T1": "(?i)MPRAGE", "FLAIR": "tirm"})
    data = data.model_copy(update={"table": "scans.csv"})
    scans = by_name(tmp_path, build(data, tmp_path))
    found = {name: scan.sequence for name, scan in scans.items()}
    assert found == {"mprage_1.nii": "T1", "tirm_1.nii": "dark fluid", "other_1.nii": ""}


def test_a_sequence_that_is_named_three_ways_is_one_sentence(brain, tmp_path):
    save_sequences(tmp_path, brain, "a", "b", "c")
    patterns = {"T1": "a_", "T1w": "b_", "t1-weighted": "c_"}
    sentence = r"One sequence is named in 3 ways, 'T1' \(scan \w{12}\), 'T1w' .*'t1-weighted' "
    with pytest.raises(UserError, match=sentence):
        build(data_of(tmp_path, sequences=patterns), tmp_path)


def test_sequences_that_differ_keep_their_names(brain, tmp_path):
    save_sequences(tmp_path, brain, "a", "b", "c")
    patterns = {"T1": "a_", "T1c": "b_", "T2": "c_"}
    inventory = build(data_of(tmp_path, sequences=patterns), tmp_path)
    assert sorted(scan.sequence for scan in inventory.scans) == ["T1", "T1c", "T2"]

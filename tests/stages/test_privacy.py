"""What names a person, planted wherever raw files can hide it, comes out nowhere."""

import base64
import gzip
import json
import os
import pty
import re
import stat
import subprocess
import sys

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom import dcmread

from stages.core.locate import redact
from stages.core.study_file import load_study
from tests.conftest import real_volume, write_study
from tests.review.conftest import GIVEN
from tests.review.server_process import review_server
from tests.stages.conftest import ENV, run_cli
from tests.volumes.volume_writers import save_dicom, save_itk

NAME, BORN, UID = "QZDOE", "19610407", "1.2.777333777"
MARKS = (NAME, BORN, "1961-04-07", UID)
PACKED = [base64.b64encode(mark.encode()).decode().rstrip("=")[:-1] for mark in MARKS]
REVIEW = "review: {accepted_share: 1, planted_share: 0.05, repeated_share: 0.05, blinded: false}\n"


def hide_in_nifti(path, data, affine):
    image = nib.Nifti1Image(data, affine)
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        image.header[field] = f"{NAME} {BORN}"[:10]
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, f"{NAME} {BORN}".encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def hide_in_nrrd(path, data, affine):
    save_itk(path, data, affine)
    head, rest = path.read_bytes().split(b"\n\n", 1)
    planted = f"\ncontent: {NAME}\n# {NAME} {BORN}\npatient:={NAME} {BORN}".encode()
    path.write_bytes(head + planted + b"\n\n" + rest)
    return path


def hide_in_metaimage(path, data, affine):
    save_itk(path, data, affine)
    head, rest = path.read_bytes().split(b"NDims", 1)
    path.write_bytes(head + f"Comment = {NAME} {BORN}\nName = {NAME}\nNDims".encode() + rest)
    return path


def hide_in_dicom(folder, data, affine, **more):
    tags = dict.fromkeys(
        ("PatientName", "PatientID", "StudyDescription", "SeriesDescription", "InstitutionName",
         "ReferringPhysicianName", "ImageComments", "PatientAddress", "AccessionNumber",
         "ProtocolName", "StudyID", "OperatorsName"), NAME,
    )  # fmt: skip
    tags |= {"PatientBirthDate": BORN, "ImageType": ["ORIGINAL", "PRIMARY", NAME]}
    paths = save_dicom(folder, data, affine, uid=f"{UID}.{len(str(folder))}", **tags | more)
    for path in paths:
        file = dcmread(path)
        file.private_block(0x11, NAME, create=True).add_new(0x01, "LO", f"{NAME} {BORN}")
        file.save_as(path)
    return paths


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Names of persons in folders, files, headers, labels, the list of held out, and what fails."""
    folder = tmp_path_factory.mktemp("planted")
    study = write_study(folder)
    image = real_volume()
    for number in range(6):
        for kind in ("images", "labels"):
            there = folder / "raw" / kind / f"person{number}.nii.gz"
            own = nib.load(there)
            data, affine = np.asarray(own.dataobj), own.affine
            new = there.parent / f"{NAME}^{number}" / f"{NAME}{number} {BORN}.nii.gz"
            hide_in_nifti(new, data, affine)
            there.unlink()
    images, labels = folder / "raw/images", folder / "raw/labels"
    part, affine = np.asarray(image.dataobj)[40:70, 40:70], image.affine
    noisy = [part + np.int16(number) for number in range(1, 9)]
    hide_in_nrrd(images / f"{NAME}^6/{NAME}6.nrrd", noisy[0], affine)
    hide_in_metaimage(images / f"{NAME}^7/{NAME}7.mha", noisy[1], affine)
    hide_in_dicom(images / f"{NAME}^8/{NAME}8", noisy[2], affine)
    visit = {"StudyInstanceUID": f"{UID}.7", "FrameOfReferenceUID": f"{UID}.8"}
    for number in (10, 11):
        visit |= {"ContrastBolusAgent": NAME, "EchoTime": 9, "RepetitionTime": 500}
        hide_in_dicom(images / f"{NAME}^10/{number}", noisy[2] + number, affine, **visit)
    # what is rejected or dropped
    hide_in_dicom(images / f"{NAME}^9/{NAME}9", noisy[3], affine, modality=NAME)
    hide_in_dicom(images / f"{NAME}^9/mip/{NAME}9", noisy[4], affine, ImageType=["MIP", NAME])
    hide_in_dicom(images / f"{NAME}^9/o/{NAME}9", noisy[5], affine, ImagePositionPatient=None)
    cut = hide_in_nifti(images / f"{NAME}^9/{NAME}9 cut.nii.gz", noisy[6], affine)
    cut.write_bytes(cut.read_bytes()[:3000])
    (images / f"{NAME}^9/{NAME}9.nrrd").write_text(f"NRRD0004\ntype: {NAME}\nsizes: {BORN}\n\n")
    (images / f"{NAME}^9/{NAME}9.mha").write_text(f"ObjectType = {NAME}\nNDims = {BORN}\n")
    (images / f"{NAME}^9/{NAME}9 lost.nii").symlink_to(folder / NAME)
    hide_in_nifti(images / f"{NAME}^9/{NAME}9 again.nii", noisy[0], affine)
    hide_in_nifti(images / f"{NAME} stray.nii", noisy[7], affine)
    hide_in_nifti(labels / f"{NAME} {BORN} orphan.nii.gz", noisy[0], affine)
    hide_in_nifti(labels / f"{NAME}^5/{NAME}5 {BORN}.nii.gz", np.zeros((9, 9, 9)), affine)
    study.write_text(study.read_text().replace(r"person(?P<id>\d+)", r"\^(?P<id>\d+)") + REVIEW)
    return study


@pytest.fixture(scope="module")
def served(planted):
    """All that a review sends and prints while a reader answers everything, by address."""
    assert run_cli("inventory", "--config", planted).returncode == 0
    found = {}
    with review_server(planted, "anna") as server:

        def get(address, **asked):
            answer = server.browser.get(address, params=asked)
            found[f"{address} {asked}"] = answer.content + str(answer.headers).encode()
            return answer

        get("/")
        while names := get("/status").json()["next"]:
            item = f"/items/{names[0]}"
            for number, volume in enumerate(get(item).json()["volumes"]):
                for layer in ("scan", *volume["overlays"]):
                    assert get(f"{item}/{number}/{layer}.nii", detail="full").status_code == 200
                window = {"low": 0, "high": 1000, "overlay": volume["overlays"][-1]}
                assert get(f"{item}/{number}/axial/3.png", **window).status_code == 200
            saved = server.browser.post(f"{item}/answer", json=GIVEN | {"answer": "accept"})
            assert saved.status_code == 200
        images = planted.parent / "raw/images"
        images.rename(images.with_name("gone"))
        refused = server.browser.post(f"{item}/answer", json=GIVEN)
        images.with_name("gone").rename(images)
        assert refused.status_code == 409
        found["refused"] = refused.content
        server.process.terminate()
        found["printed"] = "".join([*server.printed, server.process.stdout.read()]).encode()
    return found


@pytest.fixture(scope="module")
def said(planted, served):
    """What all stages say of the planted study, at their most talkative."""
    page = planted.parent / "out/sign_off.html"
    words = [["inventory"], ["reviewed"], ["review verify"], ["review sign-off", "--out", page]]
    words += [["preprocess"], ["next", "--task", "tissue", "--count", "2"]]
    words += [["pretrain"], ["probe", "task=side"], ["finetune", "task=side"]]
    words += [["finetune", "task=tissue"], ["inventory_page"], ["report"]]
    texts = []
    for name, *more in words:
        done = run_cli("-v", *name.split(), "--config", planted, *more)
        assert done.returncode == 0, done.stdout + done.stderr
        texts.append(done.stdout + done.stderr)
    return "".join(texts)


def texts_of(path):
    """All that a file says, unpacked; the file's own name with it."""
    content = path.read_bytes()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return str(table.schema.metadata) + json.dumps(table.to_pylist(), default=str)
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return content.decode("latin-1") + content.decode("utf-16-le", errors="ignore")


def test_no_output_or_message_names_a_person(planted, said):
    assert [line for line in said.splitlines() if re.search("|".join(MARKS), line)] == []
    out = planted.parent / "out"
    seen = 0
    for path in out.rglob("*"):
        assert not any(mark in str(path.relative_to(out)) for mark in MARKS), path
        if path.is_file():
            text = texts_of(path)
            assert not [mark for mark in (*MARKS, *PACKED) if mark in text], path
            assert str(planted.parent / "raw/images") not in text, path
            seen += 1
    assert seen > 40


def test_a_review_names_no_person_in_what_it_serves_prints_and_logs(planted, served, said):
    private = load_study(planted).pseudonyms.study_folder
    logs = {path: path.read_bytes() for path in private.glob("*review_log*")}
    assert any(b'"answer":"accept"' in content for content in logs.values())
    for where, content in {**served, **logs}.items():
        text = content.decode("latin-1") + content.decode("utf-16-le", errors="ignore")
        for mark in (*MARKS, *PACKED, str(planted.parent)):
            assert mark not in text, where
    links = [path.name for path in (private / "next").rglob("*")]
    assert len(links) > 3 and not re.search("|".join(MARKS), " ".join(links))


def test_every_fault_that_was_planted_was_met(planted, said):
    rows = pq.read_table(planted.parent / "out/inventory/scans.parquet").to_pylist()
    reasons = " ".join(row["reason"] for row in rows)
    for words in (
        "is of another modality", "its ImageType says MIP", "has no ImagePositionPatient",
        "cannot be read as NIfTI", "does not say how far its voxels are apart",
        "is a link to nothing", "duplicate of", "does not match its path",
        "label without image", "label tissue has another shape", "accepted in review by anna",
    ):  # fmt: skip
        assert words in reasons, words
    assert sum(row["quality"] == "accepted" for row in rows) == 12, "one by its reader alone"
    (visit,) = {row["visit"] for row in rows if row["sequence"] == "T1c"}
    assert re.fullmatch("[0-9a-f]{12}", visit)


def test_origins_lie_in_a_private_folder_and_are_printed_only_at_a_terminal(planted, said):
    study = load_study(planted)
    assert stat.S_IMODE(study.pseudonyms.private_folder.stat().st_mode) == 0o700
    rows = pq.read_table(study.folder / "inventory/scans.parquet").to_pylist()
    row = next(row for row in rows if row["subject"])
    refused = run_cli("locate", row["id"], "--config", planted)
    assert refused.returncode == 2 and NAME not in refused.stdout + refused.stderr
    for code in (row["id"], row["subject"]):
        printed = at_a_terminal("locate", code, "--config", planted)
        assert study.pseudonyms.origins[row["id"]].path in printed.replace("\r\n", "")


def at_a_terminal(*words):
    """What a command prints where a person looks."""
    reading, writing = pty.openpty()
    command = [sys.executable, "-m", "stages", *map(str, words)]
    process = subprocess.Popen(command, stdout=writing, stderr=writing, env=ENV)
    os.close(writing)
    found = b""
    while True:
        try:
            more = os.read(reading, 4096)
        except OSError:  # the other end is closed
            break
        found += more
        if not more:
            break
    assert process.wait() == 0, found
    return found.decode()


def test_a_torn_label_is_reported_by_the_code_of_its_scan(planted, said):
    labels = planted.parent / "raw/labels"
    torn = labels / f"{NAME}^0/{NAME}0 {BORN}.nii.gz"  # its header is whole
    kept = torn.read_bytes()
    torn.write_bytes(kept[:-200])
    try:
        done = run_cli("finetune", "--config", planted, "task=tissue")
    finally:
        torn.write_bytes(kept)
    assert done.returncode == 2 and not re.search("|".join(MARKS), done.stdout + done.stderr)
    assert re.search("The label tissue of scan [0-9a-f]{12} cannot be read as NIfTI", done.stderr)


def test_a_traceback_shows_no_path(planted, said):
    study = load_study(planted)
    (name, origin), *_ = study.pseudonyms.origins.items()
    text = f"OSError: [Errno 5] Input/output error: '{origin.path}/slice of {NAME}'\n"
    assert redact(study, text) == f"OSError: [Errno 5] Input/output error: '{name}'\n"
    folder = planted.parent / f"raw/images/{NAME}^9"
    assert redact(study, f"PermissionError: '{folder}'") == "PermissionError: 'head'"


def test_a_lost_salt_is_noticed_and_not_replaced(planted, said):
    study = load_study(planted)
    salt = study.pseudonyms.private_folder / "salt"
    kept = salt.read_text()
    try:
        salt.unlink()
        lost = run_cli("inventory", "--config", planted)
        assert lost.returncode == 2 and "is lost" in lost.stderr and not salt.exists()
        salt.write_text("ab" * 32)
        other = run_cli("inventory", "--config", planted)
        assert other.returncode == 2 and "is not the salt" in other.stderr
        (study.folder / "probe/side/.done.json").unlink()
        assert "is not the salt" in run_cli("probe", "--config", planted, "task=side").stderr
    finally:
        salt.write_text(kept)
    assert run_cli("inventory", "--config", planted).returncode == 0


def test_a_private_folder_that_others_can_look_into_is_refused(planted, said):
    private = load_study(planted).pseudonyms.private_folder
    (planted.parent / "raw/images/new.txt").write_text("")
    private.chmod(0o750)
    try:
        done = run_cli("inventory", "--config", planted)
    finally:
        private.chmod(0o700)
    assert done.returncode == 2 and f"chmod 700 {private}" in done.stderr


def test_two_studies_of_one_name_do_not_share_their_origins(planted, said, tmp_path):
    text = planted.read_text().replace(f"output: {planted.parent}/out", f"output: {tmp_path}/out")
    private = load_study(planted).pseudonyms.private_folder
    (tmp_path / "tiny.yaml").write_text(text + f"private: {private}\n")
    (tmp_path / "test.txt").write_text("4\n5\n")
    done = run_cli("inventory", "--config", tmp_path / "tiny.yaml")
    assert done.returncode == 2 and f"{private}/tiny belongs to the study that" in done.stderr
    renamed = (tmp_path / "tiny.yaml").read_text().replace("name: tiny", "name: other")
    (tmp_path / "tiny.yaml").write_text(renamed)
    assert run_cli("inventory", "--config", tmp_path / "tiny.yaml").returncode == 0
    both = [
        {row["id"]: row["subject"] for row in pq.read_table(path).to_pylist()}
        for path in (planted.parent / "out/inventory/scans.parquet",
                     tmp_path / "out/inventory/scans.parquet")
    ]  # fmt: skip
    assert both[0] == both[1], "one salt, one code for each"

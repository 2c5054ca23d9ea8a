"""Frames that agree while the head moved: planted motions of a real head in two sequences."""

import re

import numpy as np
import pytest

from ssl_pipeline.volumes.inventory import build_inventory
from ssl_pipeline.volumes.quality_control import QualityThresholds
from ssl_pipeline.volumes.visits.frames import RegistrationLog
from ssl_pipeline.volumes.visits.registration import coarse_scan, displacement_mm, register
from ssl_pipeline.volumes.volume import Volume
from tests.volumes.inventory_helpers import by_name, data_of, pseudonyms_of, with_noise
from tests.volumes.volume_writers import rotated_affine, save_nifti

RULES = {
    "subject": {"pattern": "(?P<name>one)"},
    "visit": {"pattern": "(?P<day>day)"},
    "frame": {"pattern": "(?P<day>day)"},
}


def other_sequence(brain, seed=1):
    """The head with another grey curve, every other slice, and noise of its own."""
    grey = with_noise(brain, seed).astype(float)
    curve = grey.max() * np.sin(grey / grey.max() * 2.5)
    affine = brain.affine @ np.diag([1, 1, 2, 1])
    return Volume(curve[:, :, ::2].astype("i2"), affine)


def motion(volume, degrees, shift_mm):
    """A rigid motion (4, 4) of RAS+ mm about the middle of a volume."""
    matrix = rotated_affine(degrees, (1.0, 1.0, 1.0), shift_mm)
    middle = (volume.affine @ [*(np.array(volume.data.shape) / 2), 1])[:3]
    matrix[:3, 3] += middle - matrix[:3, :3] @ middle
    return matrix


def moved(volume, degrees=(4, 0, 6), shift_mm=(6.0, -4.0, 3.0)):
    return Volume(volume.data, motion(volume, degrees, shift_mm) @ volume.affine)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (4, 0, 6), (0, 10, 0)])
def test_a_motion_between_two_sequences_is_found_to_a_millimetre(degrees, brain):
    second = other_sequence(brain)
    planted = motion(second, degrees, (5.0, -3.0, 2.0))
    reference = coarse_scan(brain)
    found = register(reference, coarse_scan(Volume(second.data, planted @ second.affine)))
    assert displacement_mm(found.matrix @ planted, reference.corners) < 1.5
    assert found.consistency_mm < 1.5
    true_mm = displacement_mm(planted, reference.corners)
    assert found.motion_mm == pytest.approx(true_mm, abs=1.5)


def test_a_registration_is_equal_when_made_again(brain):
    pair = coarse_scan(brain), coarse_scan(moved(other_sequence(brain)))
    np.testing.assert_array_equal(register(*pair).matrix, register(*pair).matrix)


def test_scans_that_share_no_place_cannot_be_registered(brain):
    far = moved(brain, (0, 0, 0), (2000.0, 0.0, 0.0))
    assert register(coarse_scan(brain), coarse_scan(far)) is None


@pytest.fixture
def visit(brain, tmp_path):
    """Three sequences of one visit and frame, of which `moved` lies elsewhere."""
    (tmp_path / "out").mkdir()
    volumes = {"a": brain, "b": other_sequence(brain), "c": other_sequence(brain, 2)}

    def build(moved_scan="", alignment="check"):
        for name, volume in volumes.items():
            own = moved(volume) if name == moved_scan else volume
            save_nifti(tmp_path / "raw" / f"one_day_{name}.nii", own.data, own.affine)
        data = data_of(tmp_path, **RULES)
        data = data.model_copy(
            update={"visits": data.visits.model_copy(update={"alignment": alignment})}
        )
        log = RegistrationLog(tmp_path / "out" / "registrations.jsonl")
        inventory = build_inventory(
            data, QualityThresholds(), tmp_path, pseudonyms_of(tmp_path), registrations=log
        )
        log.finish()
        return {name[8]: scan for name, scan in by_name(tmp_path, inventory).items()}

    return build


def test_scans_that_lie_together_keep_their_frame_without_a_note(visit):
    scans = visit()
    assert len({scan.frame for scan in scans.values()}) == 1
    assert {scan.reason for scan in scans.values()} == {""}


@pytest.mark.parametrize("name", ["a", "c"])
def test_the_scan_that_moved_leaves_the_frame_with_a_sentence(name, visit):
    """Also where it is the first, with which the others are registered."""
    scans = visit(name)
    kept = [scan for each, scan in scans.items() if each != name]
    assert kept[0].frame == kept[1].frame != ""
    assert scans[name].frame == ""
    assert scans[name].visit == kept[0].visit
    assert scans[name].reason.startswith("moved by ")
    assert "which has its frame of reference, and left the frame" in scans[name].reason
    assert {scan.reason for scan in kept} == {""}


def test_a_registered_scan_stays_with_the_transform_that_brings_it_back(visit, brain):
    scans = visit("c", "register")
    assert len({scan.frame for scan in scans.values()}) == 1
    assert scans["a"].to_frame == scans["b"].to_frame == []
    still = other_sequence(brain, 2)
    planted = motion(still, (4, 0, 6), (6.0, -4.0, 3.0))
    corners = coarse_scan(brain).corners
    assert displacement_mm(np.array(scans["c"].to_frame) @ planted, corners) < 1.5
    assert scans["c"].reason.endswith("and was registered with it")


def test_frames_that_are_believed_are_not_compared(visit, tmp_path):
    scans = visit("c", "none")
    assert len({scan.frame for scan in scans.values()}) == 1
    assert (tmp_path / "out" / "registrations.jsonl").read_text() == ""


def test_registrations_are_reused_while_the_scans_are_equal(visit, tmp_path):
    visit("c")
    path = tmp_path / "out" / "registrations.jsonl"
    lines = path.read_text()
    assert len(lines.splitlines()) == 2
    path.write_text(lines + '\n{"torn')
    visit("c")
    assert path.read_text() == lines
    path.write_text(re.sub('"consistency_mm":[^}]*', '"consistency_mm":99.0', lines))
    scans = visit("c")
    assert "could not be registered with" in scans["c"].reason
    assert "could not be registered with" not in visit("")["c"].reason, "its file is another"

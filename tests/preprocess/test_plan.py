"""The spacing that training scans suggest, and what stays of a plan when scans are added."""

import numpy as np
import pytest

from ssl_pipeline.preprocess.plan import build_plan, suggested_spacing
from ssl_pipeline.volumes.inventory import Scan

SHORT_AXIS = {"shape": (216, 256, 10), "spacing_mm": (1.25, 1.25, 10.0)}


def scan(name, *, root="heart", split="train", orientation="LPS", modality="MR", **grid):
    return Scan(
        id=name, root=root, modality=modality, split=split, orientation=orientation,
        quality="accepted", format="nifti", targets={}, labels={}, **(SHORT_AXIS | grid),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("slices_mm", "slices", "z_mm"),
    [
        ([10, 10, 10], 10, 10.0),  # one spacing is kept
        (list(range(5, 16)), 10, 6.0),  # the 10th percentile of 5 to 15
        ([5, 5, 10, 10, 10], 100, 10.0),  # coarse, but no fewer voxels: the median
        ([1, 1, 3, 3, 3], 10, 3.0),  # not coarse enough: the median
        ([1, 1, 5, 5, 5], 10, 1.25),  # never finer than the other axes
    ],
)
def test_a_coarse_axis_takes_the_tenth_percentile_and_all_others_the_median(
    slices_mm, slices, z_mm
):
    spacings = np.array([(mm, 1.25, 1.25) for mm in slices_mm], float)
    shapes = np.array([(slices, 256, 216)] * len(slices_mm))
    assert suggested_spacing(spacings, shapes) == (z_mm, 1.25, 1.25)


def test_roots_are_planned_apart_in_the_order_of_stored_axes_from_training_scans_alone():
    sagittal = {"orientation": "PSR", "shape": (80, 90, 70), "spacing_mm": (1.0, 1.5, 2.0)}
    plan = build_plan(
        [
            scan("a"), scan("b"), scan("c", split="test", spacing_mm=(3.0, 3.0, 3.0)),
            scan("d", root="atrium", **sagittal), scan("e", root="", modality="US"),
        ],
        number=1,
    )  # fmt: skip
    heart, atrium = plan.roots
    assert (heart.root, heart.scans, heart.spacing_mm) == ("heart", 2, (10.0, 1.25, 1.25))
    assert heart.shape((5.0, 1.25, 1.25)) == (20, 256, 216)
    assert (atrium.root, atrium.spacing_mm) == ("atrium", (1.5, 1.0, 2.0))
    assert atrium.size_mm == (135.0, 80.0, 140.0)
    assert "2 training scans of MR suggest a spacing of 10 x 1.25 x 1.25 mm" in heart.note.text


def test_a_plan_is_kept_until_the_study_asks_for_a_new_one():
    first = build_plan([scan("a")], number=1)
    more = [scan("a"), *(scan(n, spacing_mm=(2.0, 2.0, 2.0)) for n in "bcd"), scan("e", root="new")]
    kept = build_plan(more, 1, first)
    assert first.roots[0] in kept.roots and {root.root for root in kept.roots} == {"heart", "new"}
    renewed = build_plan(more, 2, first)
    assert {root.root: root.spacing_mm for root in renewed.roots}["heart"] == (2.0, 2.0, 2.0)

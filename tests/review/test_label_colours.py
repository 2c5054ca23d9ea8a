"""Colours of overlays, as they are drawn on scans, are told apart by colour-blind people too.

Colour blindness is simulated in linear RGB by the matrices of Machado et al. 2009 (severity 1), and
a difference is the distance in CIELAB (CIE 1976, D65).
"""

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from ssl_pipeline.review.pictures import LABEL_COLOURS, LABELS, OPACITY, ReviewVolume, draw_slice

VISIONS = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = np.array([[0.412456, 0.357576, 0.180437], [0.212673, 0.715152, 0.072175],
                [0.019334, 0.119192, 0.950304]])  # fmt: skip
NOTICEABLE = 2.3  # the least difference that people see (Mahy et al. 1994)
LABELS_APART = 3 * NOTICEABLE
GREYS = range(0, 256, 5)
BLUISH_GREEN = (0, 158, 115)  # Okabe and Ito's, which is not among LABEL_COLOURS


def lab_seen(colours, vision="usual"):
    """CIELAB values of sRGB colours (n, 3) from 0 to 255 as they look to somebody: (n, 3)."""
    share = np.asarray(colours, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(VISIONS[vision]), 0, 1)
    ratio = seen @ XYZ.T / XYZ.sum(axis=1)
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def drawn_on(grey):
    """The bare scan and each label on it, as a slice shows them: (1 + colours, 3)."""
    classes = np.arange(1 + len(LABEL_COLOURS), dtype=np.uint8)[:, None, None]
    scan = np.full(classes.shape, grey, np.uint8)
    volume = ReviewVolume(scan, (1.0, 1.0, 1.0), {}, {LABELS: lambda: classes})
    png = draw_slice(volume, "axial", 0, (0.0, 255.0), LABELS)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))[0, ::-1]  # x goes to the left
    width = len(pixels) / len(classes)
    return pixels[[int((at + 0.5) * width) for at in range(len(classes))]]


def test_the_simulation_has_known_colours():
    assert lab_seen([(255, 0, 0)])[0] == pytest.approx((53.24, 80.09, 67.20), abs=0.02)
    for vision in VISIONS:
        assert lab_seen([(128, 128, 128)], vision)[0] == pytest.approx((53.59, 0, 0), abs=0.02)
    mixed = (1 - OPACITY) * 120 + OPACITY * np.array(BLUISH_GREEN)
    vanished, bare = lab_seen([mixed, (120, 120, 120)], "deuteranopia")
    assert np.linalg.norm(vanished - bare) < NOTICEABLE < np.linalg.norm(mixed - 120)


@pytest.mark.parametrize("vision", VISIONS)
def test_labels_are_told_apart_and_from_the_scan_under_them(vision):
    for grey in GREYS:
        bare, *labels = lab_seen(drawn_on(grey), vision)
        apart = [np.linalg.norm(one - other) for one, other in combinations(labels, 2)]
        assert len(apart) == 15 and min(apart) > LABELS_APART, grey
        assert min(np.linalg.norm(label - bare) for label in labels) > NOTICEABLE, grey

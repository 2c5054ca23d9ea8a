"""Paths of images in a BIDS folder: subject, session, modality and sequence."""

import re
from typing import NamedTuple

from ssl_pipeline.volumes.readers.dicom_sequence import AFTER_CONTRAST

ONLY_SESSION = "only"  # of a subject whose folder has no sessions
SEQUENCE_OF_SUFFIX = {
    **{"T1w": "T1", "T2w": "T2", "PDw": "PD", "T2starw": "T2star", "ct": "CT"},
    **{name: name for name in ["FLAIR", "T2star", "PDT2", "angio", "UNIT1", "T1map", "T2map"]},
    **{"inplaneT1": "T1", "inplaneT2": "T2"},
}
BIDS_PATH = re.compile(
    r"(?P<above>.*/)?sub-(?P<subject>[^/_]+)/(?:ses-(?P<session>[^/]+)/)?(?:anat|ct)"
    r"/(?P<entities>[^/]*)_(?P<suffix>[^/_.]+)\.[^/]+"
)


class BidsImage(NamedTuple):
    """What the path of an image says of it."""

    subject: str
    session: str
    modality: str  # "CT" or "MR"
    sequence: str  # such as "T1c"


def parse_bids(relative_path: str) -> BidsImage | None:
    """What a path below a BIDS folder says; None where it is that of no image, or of a derivative.

    A subject without sessions has one.
    """
    named = BIDS_PATH.fullmatch(relative_path)
    if (
        not named
        or named["suffix"] not in SEQUENCE_OF_SUFFIX
        or "derivatives/" in (named["above"] or "")
    ):
        return None
    sequence = SEQUENCE_OF_SUFFIX[named["suffix"]]
    if "_ce-" in named["entities"] and sequence in ("CT", "T1"):
        sequence += AFTER_CONTRAST
    modality = "CT" if named["suffix"] == "ct" else "MR"
    return BidsImage(named["subject"], named["session"] or ONLY_SESSION, modality, sequence)

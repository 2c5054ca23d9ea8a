"""Headers of DICOM files: position, size and distinguishing attributes of every frame.

A classic file holds one image, an enhanced one many, whose positions and attributes stand in
functional groups, shared or one per frame. Both become `Frame`s here, and nothing after this knows
the difference. Only headers are read. A frame that cannot be part of a volume has the reason in
`fault`.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import UID

from ssl_pipeline.formatting import format_count
from ssl_pipeline.io.text import normalize_word
from ssl_pipeline.volumes.readers.dicom_file import DICOM_UID_PREFIX, read_file
from ssl_pipeline.volumes.readers.dicom_sequence import Acquisition, sequence_name

warnings.filterwarnings("ignore", module="pydicom")  # of odd values; what matters is reported here
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # scanners write odd values

# What images of one series share, for patient, study and series have them (PS3.3, A.1);
# each with the name of a part that differs in it.
IDENTITY = {
    **dict.fromkeys(("PatientID", "PatientName", "PatientBirthDate", "PatientSex"), "patient"),
    **dict.fromkeys(("StudyInstanceUID", "StudyDate", "AccessionNumber"), "study"),
    "Modality": "modality",
    "SeriesNumber": "series",
    "FrameOfReferenceUID": "frame",
}
HEADER_TAGS = [
    *IDENTITY,
    "AcquisitionDateTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "Columns",
    "ContentTime",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "DiffusionBValue",
    "EchoNumbers",
    "EchoTime",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InversionTime",
    "NumberOfFrames",
    "ModalityLUTSequence",
    "PerFrameFunctionalGroupsSequence",
    "PhotometricInterpretation",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PixelRepresentation",
    "PixelSpacing",
    "RepetitionTime",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "Rows",
    "SamplesPerPixel",
    "ScanningSequence",
    "SeriesInstanceUID",
    "SharedFunctionalGroupsSequence",
    "SOPClassUID",
    "SOPInstanceUID",
    "TemporalPositionIdentifier",
    "TriggerTime",
]
MODALITIES = ("CT", "MR")
OTHER_MODALITIES = (  # those that messages name, for a header may say anything
    *("CR", "DX", "MG", "NM", "PR", "PT", "RF", "RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT"),
    *("SC", "SEG", "SR", "US", "XA"),
)
MODALITY_OF_CLASS = {  # by the end of the SOP class, where the header's Modality says nothing
    **dict.fromkeys(("2", "2.1", "2.2"), "CT"),
    **dict.fromkeys(("4", "4.1", "4.4"), "MR"),
}
IMAGE_CLASSES = f"{DICOM_UID_PREFIX}5.1.4.1.1."
UNSPECIFIED_MODALITIES = ("", "OT")  # "other" are conversions, whose root has the modality
CT_RESCALE_TYPES = ("", "HU", "US", "HU_MOD")  # not said, HU, unspecified, HU of virtual images
DECODABLE_SYNTAXES = (  # transfer syntaxes that GDCM or pydicom decode, by the end of their UID
    *("1.2", "1.2.1", "1.2.2", "1.2.1.99", "1.2.5"),
    *(f"1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91)),
)
UNIT_TOLERANCE = 0.01  # by which a direction's length may miss 1 before it is taken for an error
NO_POSITION = np.zeros(3)
NO_AGENT = ("", "NO", "0")  # as ContrastBolusAgent says that none was given


@dataclass(frozen=True, eq=False)
class Frame:
    """One 2D image of a file."""

    path: Path
    number: int  # in its file, from 0
    count: int  # of frames in its file
    series_uid: str
    identity: dict[str, str]  # the attributes of IDENTITY, by name
    uid: str  # of its file
    image_type: tuple[str, ...]
    size: tuple[int, int]  # rows, columns
    spacing: tuple[float, float]  # mm between rows, between columns
    rescale: tuple[float, float]  # slope, intercept
    padding: tuple[int, int] | None  # range of stored values of voxels that hold nothing
    position: NDArray[np.float64]  # of the first voxel, LPS mm
    cosines: NDArray[np.float64]  # (2, 3): along a row, along a column
    split_values: dict[str, str]  # attributes that may differ at one position, by name
    sequence: str  # such as "T1c", see `dicom_sequence`
    fault: str = ""

    @property
    def patient_id(self) -> str:
        """PatientID, of the person."""
        return self.identity["PatientID"]

    @property
    def study_uid(self) -> str:
        """UID of the visit."""
        return self.identity["StudyInstanceUID"]

    @property
    def frame_uid(self) -> str:
        """UID of the scanner's coordinates, which scans of one session share."""
        return self.identity["FrameOfReferenceUID"]

    @property
    def modality(self) -> str:
        """The header's, or that of its SOP class."""
        return self.identity["Modality"]

    @property
    def normal(self) -> NDArray[np.float64]:
        """The direction in which slices are stacked, LPS, of length 1."""
        return np.cross(*self.cosines)


class _FrameError(Exception):
    """Why a frame cannot be part of a volume."""


def read_frames(path: Path) -> list[Frame]:
    """The images of a DICOM file; none where it holds none. Raises whatever pydicom raises."""
    header = read_file(path, specific_tags=[*HEADER_TAGS], stop_before_pixels=True)
    if "Rows" not in header:
        return []
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        return [_frame(path, header, [header], 0, 1, _file_fault(header))]
    shared = header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    fault = _file_fault(header, len(frames))
    if fault:
        return [_frame(path, header, [header], 0, 1, fault)]
    return [
        _frame(path, header, [each, shared[0], header], number, len(frames), "")
        for number, each in enumerate(frames)
    ]


def _file_fault(header: pydicom.Dataset, described_frames: int = 1) -> str:
    """Why no image of a file can be used, whatever its position."""
    modality = _modality(header)
    frames = int(header.get("NumberOfFrames") or 1)
    packing = UID(header.file_meta.get("TransferSyntaxUID", ""))
    if modality not in (*MODALITIES, *UNSPECIFIED_MODALITIES):
        name = f"modality {modality}" if modality in OTHER_MODALITIES else "another modality"
        return f"is of {name}; only CT and MR are read"
    if fault := _meaning_fault(header):
        return fault
    if frames != described_frames and described_frames == 1:
        return f"holds {frames} frames and does not say where each lies"
    if frames != described_frames:
        return f"says that it holds {frames} frames, and describes {described_frames}"
    if (
        packing.startswith(DICOM_UID_PREFIX)
        and packing.removeprefix(DICOM_UID_PREFIX) not in DECODABLE_SYNTAXES
    ):
        name = f"as {packing.name}" if packing.name != packing else "in an unknown way"
        return f"is packed {name}, which cannot be decoded here; unpack it first"
    return ""


def _modality(header: pydicom.Dataset) -> str:
    """The header's Modality; where it is unspecified, that of its SOP class if it has one."""
    stated = str(header.get("Modality") or "").strip().upper()
    of_class = str(header.get("SOPClassUID") or "").removeprefix(IMAGE_CLASSES)
    return MODALITY_OF_CLASS.get(of_class, stated) if stated in UNSPECIFIED_MODALITIES else stated


def _meaning_fault(header: pydicom.Dataset) -> str:
    """Why stored values are no measured intensities; empty where they are."""
    photometric = str(header.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper()
    if photometric == "MONOCHROME1":
        return "holds inverted values (MONOCHROME1); convert it to MONOCHROME2"
    if int(header.get("SamplesPerPixel") or 1) > 1 or photometric != "MONOCHROME2":
        return "holds colours; a volume has one number a voxel"
    if header.get("ModalityLUTSequence"):
        return "holds places in a table (ModalityLUTSequence); convert it to rescaled values"
    return ""


def _padding(header: pydicom.Dataset) -> tuple[int, int] | None:
    """The first and last stored value, as written, of voxels outside of what was measured."""
    value, limit = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    return value, limit if isinstance(limit, int) else value


def _frame(
    path: Path,
    header: pydicom.Dataset,
    groups: list[pydicom.Dataset],
    number: int,
    count: int,
    fault: str,
) -> Frame:
    """One frame, from its groups of attributes, the most specific first."""
    modality = _modality(header)
    try:
        if fault:
            raise _FrameError(fault)
        position = _numbers(_attribute(groups, "PlanePositionSequence", "ImagePositionPatient"), 3)
        cosines = _numbers(
            _attribute(groups, "PlaneOrientationSequence", "ImageOrientationPatient"), 6
        )
        sides = _numbers(_attribute(groups, "PixelMeasuresSequence", "PixelSpacing"), 2)
        if sides.min() < 0:
            raise _FrameError("has a negative PixelSpacing")
        cosines = _unit_vectors(cosines.reshape(2, 3))
        scaling = _scaling(groups, modality)
    except _FrameError as error:
        fault, position, cosines, sides = str(error), NO_POSITION, np.eye(3)[:2], np.ones(2)
        scaling = (1.0, 0.0)
    return Frame(
        path=path,
        number=number,
        count=count,
        series_uid=str(header.get("SeriesInstanceUID") or "").replace("#", ""),  # it marks a part
        identity={name: str(header.get(name) or "") for name in IDENTITY} | {"Modality": modality},
        uid=str(header.get("SOPInstanceUID") or ""),
        image_type=_image_type(header, groups),
        size=(int(header.Rows), int(header.Columns or 0)),
        spacing=(float(sides[0]), float(sides[1])),
        rescale=scaling,
        padding=_padding(header),
        position=position,
        cosines=cosines,
        split_values={
            name: _split_value(groups, places) for name, places in SPLIT_ATTRIBUTES.items()
        },
        sequence=sequence_name(_acquisition(header, groups, modality)),
        fault=fault,
    )


def _scaling(groups: list[pydicom.Dataset], modality: str) -> tuple[float, float]:
    """Slope and intercept of the values; 1 and 0 where they are not said."""
    sequence = "PixelValueTransformationSequence"
    kind = str(_attribute(groups, sequence, "RescaleType")[1] or "").strip().upper()
    if modality == "CT" and kind not in CT_RESCALE_TYPES:
        raise _FrameError("has values that are no Hounsfield units, by its RescaleType")
    found = []
    for name, usual in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
        value = _attribute(groups, sequence, name)[1]
        found.append(_numbers((name, [usual if value is None else value]), 1)[0])
    if found[0] == 0:
        raise _FrameError("has a RescaleSlope of 0, which leaves no values")
    return float(found[0]), float(found[1])


def _acquisition(
    header: pydicom.Dataset, groups: list[pydicom.Dataset], modality: str
) -> Acquisition:
    """How a frame was acquired; of a contrast agent only whether there was one."""

    def number(*places: tuple[str, str]) -> float:
        try:
            return float(_split_value(groups, places) or "nan")
        except ValueError:
            return math.nan

    kinds = header.get("ScanningSequence") or ()
    agent = normalize_word(str(header.get("ContrastBolusAgent") or ""))
    return Acquisition(
        modality,
        echo_ms=number(*SPLIT_ATTRIBUTES["echotime"]),
        repetition_ms=number(
            ("MRTimingAndRelatedParametersSequence", "RepetitionTime"), ("", "RepetitionTime")
        ),
        inversion_ms=number(
            ("MRModifierSequence", "InversionTimes"), *SPLIT_ATTRIBUTES["inversion"]
        ),
        b_value=number(*SPLIT_ATTRIBUTES["bvalue"]),
        scanning_sequence=(kinds,) if isinstance(kinds, str) else tuple(map(str, kinds)),
        has_contrast_agent=agent.upper() not in NO_AGENT
        or bool(header.get("ContrastBolusAgentSequence")),
    )


def _attribute(groups: Iterable[pydicom.Dataset], sequence: str, name: str) -> tuple[str, Any]:
    """An attribute's name and value: from a group's sequence, or from the group itself."""
    for group in groups:
        inside = group.get(sequence)
        for place in (inside[0] if inside else None, group):
            if place is not None and place.get(name) not in (None, ""):
                return name, place.get(name)
    return name, None


def _numbers(attribute: tuple[str, Any], count: int) -> NDArray[np.float64]:
    name, value = attribute
    if not value:
        raise _FrameError(f"has no {name}, so its place in the body is unknown")
    try:
        numbers = np.array([float(part) for part in value], dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise _FrameError(f"says a {name} that is not {format_count(count, 'number')}")
    return numbers


def _unit_vectors(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(cosines, axis=1)
    if np.abs(lengths - 1).max() > UNIT_TOLERANCE or abs(cosines[0] @ cosines[1]) > UNIT_TOLERANCE:
        raise _FrameError(
            "has an ImageOrientationPatient that is no pair of right angled directions"
        )
    unit: NDArray[np.float64] = cosines / lengths[:, None]
    return unit


def _image_type(header: pydicom.Dataset, groups: list[pydicom.Dataset]) -> tuple[str, ...]:
    frame_type = next(
        (
            found
            for sequence in ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence")
            if (found := _attribute(groups[:-1], sequence, "FrameType")[1])
        ),
        None,
    )
    words = frame_type or header.get("ImageType") or ()
    return (words,) if isinstance(words, str) else tuple(str(word) for word in words)


# Each attribute with where it may stand: (sequence of an enhanced group, attribute). The order
# is that in which they are tried; an echo or a contrast says more than a time.
SPLIT_ATTRIBUTES: dict[str, tuple[tuple[str, str], ...]] = {
    "echo": (("", "EchoNumbers"),),
    "echotime": (("MREchoSequence", "EffectiveEchoTime"), ("", "EchoTime")),
    "bvalue": (("MRDiffusionSequence", "DiffusionBValue"),),
    "inversion": (("", "InversionTime"),),
    "acquisition": (
        ("FrameContentSequence", "FrameAcquisitionNumber"),
        ("", "AcquisitionNumber"),
    ),
    "timepoint": (
        ("FrameContentSequence", "TemporalPositionIndex"),
        ("", "TemporalPositionIdentifier"),
    ),
    "phase": (
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
        ("", "TriggerTime"),
    ),
    "stack": (("FrameContentSequence", "StackID"),),
    "time": (
        ("FrameContentSequence", "FrameAcquisitionDateTime"),
        ("", "AcquisitionDateTime"),
        ("", "AcquisitionTime"),
        ("", "ContentTime"),
    ),
}


def _split_value(groups: list[pydicom.Dataset], places: tuple[tuple[str, str], ...]) -> str:
    values = (_attribute(groups, sequence, name)[1] for sequence, name in places)
    return next((str(value) for value in values if value is not None), "")

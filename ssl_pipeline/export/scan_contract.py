"""How scans are checked and prepared for a network: what every bundle says of it."""

from pydantic import Field

from ssl_pipeline.config.section import Section
from ssl_pipeline.export.stored_values import StoredValues
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.volumes.quality_control import QualityThresholds


class ScanContract(Section):
    """What makes of a new scan a volume like those that a network was trained on."""

    quality: QualityThresholds = Field(description="beyond which scans are rejected")
    stored_values: tuple[StoredValues, ...] = Field(description="meaning of training files' values")
    preprocess: Preprocess = Field(description="how scans are prepared")

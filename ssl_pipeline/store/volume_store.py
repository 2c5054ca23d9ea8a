"""VolumeStore: the volumes of a study, each with a key of the scan and settings it was made from.

A volume's key hashes what its content depends on, and nothing else: the bytes of the scan, how its
values are read, the settings of its own modality, and the versions of the code. So a changed MR
setting does not affect CT volumes, and a renamed or moved scan is not preprocessed again.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ssl_pipeline.io.atomic import sha256_json
from ssl_pipeline.preprocess.config import Preprocess
from ssl_pipeline.preprocess.prepare import VERSION, PreparedVolume
from ssl_pipeline.store.layout import FORMAT_VERSION, StoreSettings, VolumeAttributes, volume_files
from ssl_pipeline.store.writer import read_complete_attributes, write_volume
from ssl_pipeline.volumes.inventory import Scan


@dataclass(frozen=True)
class VolumeStore:
    """The volumes of a study, one folder each; can be pickled, so that workers write to it."""

    folder: Path
    preprocess: Preprocess
    settings: StoreSettings

    def volume_path(self, scan_id: str) -> Path:
        """Folder of one volume."""
        return self.folder / f"{scan_id}.zarr"

    def volume_files(self, scan_id: str) -> tuple[Path, Path]:
        """The two files of one volume."""
        document, voxels = volume_files(scan_id)
        return self.folder / document, self.folder / voxels

    def key(self, scan: Scan) -> str:
        """Hash of all that a volume's content depends on."""
        return sha256_json(
            {
                "settings": self._settings_hashes["ct" if scan.modality == "CT" else "mr"],
                "scan": scan.sha256,
                "modality": scan.modality,
                "intensity_offset": scan.intensity_offset,
                "missing_value": scan.missing_value,
                "masks": {kind: mask["sha256"] for kind, mask in scan.masks.items()},
            }
        )

    @cached_property
    def _settings_hashes(self) -> dict[str, str]:
        """Hash of versions and settings, by the modality that they hold for."""
        common = [VERSION, FORMAT_VERSION, self.settings.model_dump(mode="json")]
        found = {}
        for own, other in (("ct", "mr"), ("mr", "ct")):
            settings = self.preprocess.model_dump(mode="json", exclude={other, "max_gib"})
            found[own] = sha256_json([*common, settings])
        return found

    def complete_attributes(self, scan: Scan) -> VolumeAttributes | None:
        """The attributes of the scan's volume, where it is complete and of the present settings."""
        return read_complete_attributes(self.volume_path(scan.id), self.key(scan))

    def put(self, scan: Scan, prepared: PreparedVolume) -> None:
        """Write the scan's volume, replacing an older one."""
        write_volume(self.volume_path(scan.id), prepared, self.settings, self.key(scan))

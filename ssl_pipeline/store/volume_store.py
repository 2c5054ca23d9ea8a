"""VolumeStore: the volumes of a study, each with a key of the scan and settings it was made from.

A volume's key hashes what its content depends on, and nothing else: the bytes of the scan, how its
values are read, the settings of its own modality and root, and the versions of the code. So a
changed MR setting does not affect CT volumes, and a scan that was moved within its root is not
preprocessed again.
"""

from dataclasses import dataclass, field
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
    # Hashes of versions and settings that are known already, by root and modality.
    _settings_hashes: dict[tuple[str, str], str] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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
                "settings": self._settings_hash(scan.root, scan.modality),
                "scan": scan.sha256,
                "modality": scan.modality,
                "intensity_offset": scan.intensity_offset,
                "missing_value": scan.missing_value,
                "masks": {kind: mask["sha256"] for kind, mask in scan.masks.items()},
            }
        )

    def _settings_hash(self, root: str, modality: str) -> str:
        """Hash of versions and of the settings that hold for scans of a root and modality."""
        known = self._settings_hashes
        if (root, modality) not in known:
            own, other = ("ct", "mr") if modality == "CT" else ("mr", "ct")
            settings = self.preprocess.for_roots([root]).model_dump(
                mode="json", exclude={other: True, "max_gib": True, own: {"spacing_by_root"}}
            )
            stored_as = self.settings.model_dump(mode="json")
            known[root, modality] = sha256_json([VERSION, FORMAT_VERSION, stored_as, settings])
        return known[root, modality]

    def complete_attributes(self, scan: Scan) -> VolumeAttributes | None:
        """The attributes of the scan's volume, where it is complete and of the present settings."""
        return read_complete_attributes(self.volume_path(scan.id), self.key(scan))

    def put(self, scan: Scan, prepared: PreparedVolume) -> None:
        """Write the scan's volume, replacing an older one."""
        write_volume(self.volume_path(scan.id), prepared, self.settings, self.key(scan))

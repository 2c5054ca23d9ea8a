"""The catalog holds the complete volumes, and equal content gives equal bytes."""

import pyarrow.parquet as pq
import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.preprocess.config import Ct, Mr
from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.layout import StoreSettings
from ssl_pipeline.store.volume_store import VolumeStore


@pytest.fixture
def scans(make_scan):
    return [make_scan(name, site=f"site {name}") for name in ("c", "a", "b")]


def test_complete_volumes_are_entered_and_read_back(volume_store, scans, prepared, tmp_path):
    for scan in scans[:2]:
        volume_store.put(scan, prepared)
    catalog = Catalog.build(volume_store, scans)
    assert [entry.id for entry in catalog.entries] == ["c", "a"]
    catalog.write(tmp_path / "catalog.parquet")
    again = Catalog.read(tmp_path / "catalog.parquet")
    assert again == catalog
    entry = again.by_id("a")
    assert entry.shape == prepared.data.shape[1:]
    assert entry.meta == prepared.meta
    assert (entry.site, entry.targets, entry.labels) == (
        "site a",
        {"side": "left"},
        {"organ": False},
    )
    with pytest.raises(UserError, match="b is not among the 2"):
        again.by_id("b")


def test_equal_content_gives_equal_bytes(volume_store, scans, prepared, tmp_path):
    for scan in scans:
        volume_store.put(scan, prepared)
    Catalog.build(volume_store, scans).write(tmp_path / "one.parquet")
    Catalog.build(volume_store, scans).write(tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def is_complete(store, scan):
    return store.complete_attributes(scan) is not None


def test_a_restart_skips_what_is_done_with_the_same_settings(volume_store, make_scan, prepared):
    mr, ct = make_scan("mr"), make_scan("ct", modality="CT")
    for scan in (mr, ct):
        volume_store.put(scan, prepared)
    assert is_complete(volume_store, mr)
    assert is_complete(volume_store, ct)

    def with_settings(**changes):
        return VolumeStore(
            volume_store.folder,
            volume_store.preprocess.model_copy(update=changes),
            volume_store.settings,
        )

    thinner = with_settings(mr=Mr(spacing_mm=(0.5, 0.5, 0.5)))
    assert (is_complete(thinner, mr), is_complete(thinner, ct)) == (False, True)
    wider = with_settings(ct=Ct(window_hu=(-200.0, 300.0)))
    assert (is_complete(wider, mr), is_complete(wider, ct)) == (True, False)
    assert is_complete(with_settings(max_gib=1.0), mr)
    assert not is_complete(with_settings(margin_voxels=9), mr)
    zstd = VolumeStore(volume_store.folder, volume_store.preprocess, StoreSettings(codec="zstd"))
    assert not is_complete(zstd, mr)
    assert not is_complete(volume_store, make_scan("mr", sha256="the file has changed"))
    assert not is_complete(volume_store, make_scan("mr", missing_value=0.0))
    assert is_complete(volume_store, make_scan("mr", subject="another name"))
    assert Catalog.build(thinner, [mr, ct]).entries[0].id == "ct"


def test_another_version_and_another_file_are_one_sentence(volume_store, scans, prepared, tmp_path):
    path = tmp_path / "catalog.parquet"
    with pytest.raises(UserError, match="no catalog that can be read"):
        Catalog.read(path)
    path.write_text("not a table")
    with pytest.raises(UserError, match="no catalog that can be read"):
        Catalog.read(path)
    volume_store.put(scans[0], prepared)
    Catalog.build(volume_store, scans).write(path)
    table = pq.read_table(path).replace_schema_metadata({b"ssl_pipeline_catalog": b"7"})
    pq.write_table(table, path)
    with pytest.raises(UserError, match="has catalog version 7, this version reads 6"):
        Catalog.read(path)

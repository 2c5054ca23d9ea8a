"""Every damaged byte is found and its file named."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_pipeline.errors import UserError
from ssl_pipeline.store.layout import StoreSettings, read_attributes
from ssl_pipeline.store.verify import find_damage
from ssl_pipeline.store.writer import write_volume


@pytest.fixture(scope="module")
def volume(prepared, tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "a.zarr"
    write_volume(path, prepared, StoreSettings(), "key")
    return path


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(["zarr.json", "c/0/0/0/0"]),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 6),
)
def test_a_damaged_byte_is_named(volume, name, place, bit):
    file = volume / name
    before = file.read_bytes()
    after = bytearray(before)
    after[int(place * len(after))] ^= 1 << bit
    try:
        file.write_bytes(after)
        same = name == "zarr.json" and _loaded(after) == json.loads(before)
        assert (find_damage(volume) == "") == same
        assert same or name in find_damage(volume) or "store format" in find_damage(volume)
    finally:
        file.write_bytes(before)
    assert find_damage(volume) == ""


def _loaded(content):
    try:
        return json.loads(content)
    except ValueError:
        return None


def test_missing_and_short_files_are_named(volume):
    voxels = volume / "c/0/0/0/0"
    content = voxels.read_bytes()
    voxels.write_bytes(content[:-5])
    assert f"has {len(content) - 5} bytes where {len(content)} were written" in find_damage(volume)
    voxels.unlink()
    assert find_damage(volume) == f"{voxels} is missing."
    voxels.write_bytes(content)
    assert "zarr.json is missing or damaged" in find_damage(volume.parent / "none.zarr")


def test_another_format_version_is_one_sentence(volume):
    document = json.loads((volume / "zarr.json").read_text())
    document["attributes"]["ssl_pipeline"]["format"] = 99
    other = volume.parent / "other.zarr"
    other.mkdir()
    (other / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="has store format 99, this version reads 1"):
        read_attributes(other)

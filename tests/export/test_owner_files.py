"""What the owner of a bundle wrote is still there when the bundle is made again."""

from ssl_pipeline.export.bundle import load_encoder
from tests.export.conftest import save_random_bundle

LICENCE = "Use it under CC BY 4.0."


def test_an_edited_readme_and_further_files_stay(tmp_path):
    bundle = save_random_bundle(tmp_path / "encoder")
    readme = bundle / "README.md"
    readme.write_text(f"{readme.read_text()}\n{LICENCE}\n")
    (bundle / "LICENSE").write_text(LICENCE)
    (bundle / "notes").mkdir()
    (bundle / "notes/a.txt").write_text("mine")
    edited = readme.read_text()
    for crop in ((16, 16, 16), (16, 16, 32)):
        save_random_bundle(bundle, crop=crop)
        assert readme.read_text() == edited
        assert (bundle / "LICENSE").read_text() == LICENCE
        assert (bundle / "notes/a.txt").read_text() == "mine"
    assert "16 x 16 x 32 voxels" in (bundle / "README.new.md").read_text()
    assert load_encoder(bundle).crop_voxels == (16, 16, 32)


def test_an_edited_readme_of_a_bundle_that_has_lost_a_file_stays(tmp_path):
    bundle = save_random_bundle(tmp_path / "encoder")
    (bundle / "README.md").write_text(LICENCE)
    (bundle / "encoder.json").write_bytes(b"")
    save_random_bundle(bundle)
    assert (bundle / "README.md").read_text() == LICENCE


def test_a_readme_as_it_was_generated_is_replaced(tmp_path):
    bundle = save_random_bundle(tmp_path / "encoder")
    save_random_bundle(bundle, crop=(16, 16, 32))
    assert "16 x 16 x 32 voxels" in (bundle / "README.md").read_text()
    assert not (bundle / "README.new.md").exists()

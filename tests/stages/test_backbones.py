"""A study of another backbone goes the same way, from raw scans to the report."""

import pytest

from ssl_pipeline.errors import UserError
from ssl_pipeline.export.bundle import load_encoder
from ssl_pipeline.models.resenc import ResEncEncoder
from ssl_pipeline.models.unet_decoder import UNetDecoder
from stages.core.runner import run_stage
from stages.core.study_file import load_study
from tests.conftest import write_study

OTHER = """\
model: {name: resenc, patch_voxels: [4, 8, 8]}
objective:
  name: custom
  terms: [{name: reconstruction, decoder: unet}, {name: dense_contrast, decoder: unet}]"""
CHANGES = {
    "model: {patch_voxels: [8, 8, 8]}": OTHER,
    "finetune: {": "finetune: {decoder: {name: unet, start: pretrained}, ",
}


@pytest.fixture
def study_file(tmp_path):
    path = write_study(tmp_path)
    text = path.read_text()
    for old, new in CHANGES.items():
        text = text.replace(old, new)
    path.write_text(text)
    return path


def test_a_convolutional_study_goes_from_raw_scans_to_the_report(study_file):
    study = load_study(study_file)
    for name, wildcards in (
        ("inventory", {}), ("preprocess", {}), ("pretrain", {}), ("probe", {"task": "side"}),
        ("finetune", {"task": "side"}), ("finetune", {"task": "tissue"}), ("report", {}),
    ):  # fmt: skip
        run_stage(name, study, wildcards)
    encoder = load_encoder(study.encoder)
    decoder = UNetDecoder(encoder.model)
    decoder.load_state_dict(encoder.decoder)
    assert encoder.manifest.has_decoder and "decoder.safetensors" in (
        (study.encoder / "README.md").read_text()
    )
    assert isinstance(encoder.model, ResEncEncoder) and encoder.model.patch == (4, 8, 8)
    assert encoder.embed(study_file.parent / "raw/images/person4.nii.gz", "MR").vector.shape == (
        128,
    )
    assert (study.folder / "report/report.html").stat().st_size > 10_000


def test_a_decoder_needs_two_tokens_of_a_transformer_too(study_file):
    text = study_file.read_text().replace("name: resenc, patch_voxels: [4, 8, 8]", "name: vit")
    study_file.write_text(text.replace("crop_voxels: [16, 16, 16]", "crop_voxels: [8, 16, 16]"))
    with pytest.raises(UserError, match="the encoder sees 1 and needs 2: choose larger crops"):
        load_study(study_file)


def test_a_decoder_that_nothing_trains_is_no_start(study_file):
    study_file.write_text(study_file.read_text().replace(", decoder: unet}", "}"))
    with pytest.raises(UserError, match=r"tasks\.tissue is pretrained, and objective trains no"):
        load_study(study_file)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("patch_voxels: [6, 8, 8]", "model.patch_voxels: .* give powers of two"),
        ("patch_voxels: [8, 8, 32]", r"views.crop_voxels is \[16, 16, 16\], no multiple of"),
        ("patch_voxels: [16, 8, 8]", "the encoder sees 1 and needs 2: choose larger crops"),
        (
            "patch_voxels: [4, 8, 8], strides: [[1, 1, 1], [2, 2, 2]]",
            "model: strides has 2 stages and kernel_sizes 0: give both for every stage",
        ),
        (
            "patch_voxels: [4, 8, 8], strides: [[1, 1, 1], [2, 2, 2]], "
            "kernel_sizes: [[3, 3, 3], [3, 3, 3]]",
            r"its product is \[2, 2, 2\]: begin with \[1, 1, 1\], and let patch_voxels be the",
        ),
        ("patch_voxels: [2, 8]", "model.patch_voxels is "),
        ("presets: L", "model.presets is not known: did you mean preset"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_sentence(study_file, settings, message):
    study_file.write_text(study_file.read_text().replace("patch_voxels: [4, 8, 8]", settings))
    with pytest.raises(UserError, match=message):
        load_study(study_file)

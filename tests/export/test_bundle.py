"""Bundles: saving, loading, self-test, and features of a new scan."""

import json
import os
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.bundle import save_bundle
from ssl_pipeline.export.manifest import BUNDLE_MANIFEST, DECODER_FILE, SELF_TEST_FILE, WEIGHTS_FILE
from ssl_pipeline.export.self_test import SelfTestInput
from ssl_pipeline.io.atomic import sha256_file
from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.models.unet_decoder import UNetDecoder
from ssl_pipeline.preprocess.config import Preprocess
from stages.core.runner import ROOT
from tests.conftest import real_volume
from tests.export.conftest import save_random_bundle


def test_loaded_weights_are_the_saved_ones(bundle):
    loaded, made = load_encoder(bundle), random_encoder(ViT(), 7)
    for name, value in made.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)


def load_damaged(bundle, tmp_path, name, change):
    """The error of loading a bundle one of whose files was changed or removed."""
    folder = tmp_path / "damaged"
    shutil.copytree(bundle, folder, dirs_exist_ok=True)
    changed = change((folder / name).read_bytes())
    (folder / name).unlink()
    if changed is not None:
        (folder / name).write_bytes(changed)
    with pytest.raises(UserError) as said:
        load_encoder(folder)
    assert str(folder) in str(said.value) and "\n" not in str(said.value)
    return str(said.value)


def flip_a_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("name", [WEIGHTS_FILE, SELF_TEST_FILE, DECODER_FILE])
def test_a_changed_bit_or_missing_file_is_reported(bundle, tmp_path, name):
    if name == DECODER_FILE:
        decoder = UNetDecoder(random_encoder(ViT(), 7))
        bundle = save_random_bundle(tmp_path / "with_decoder", decoder=decoder)
    said = load_damaged(bundle, tmp_path, name, flip_a_bit)
    assert f"{name} is damaged, for its SHA-256 is not" in said
    assert f"lacks {name}" in load_damaged(bundle, tmp_path, name, lambda _: None)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    encoder = random_encoder(ViT(), 0)
    with torch.no_grad():
        encoder.embed.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"weights embed.weight of the encoder are not finite"):
        save_bundle(tmp_path / "e", encoder, ViT(), Preprocess(), (16, 16, 16), {})
    assert not (tmp_path / "e").exists()


def test_an_unreadable_manifest_is_reported(bundle, tmp_path):
    for change in (lambda whole: whole[:-9], lambda _: b"[]", lambda _: b"\xff"):
        assert f"{BUNDLE_MANIFEST} is damaged" in load_damaged(
            bundle, tmp_path, BUNDLE_MANIFEST, change
        )
    odd = load_damaged(
        bundle, tmp_path, BUNDLE_MANIFEST, lambda whole: whole.replace(b'"tiny"', b'"huge"')
    )
    assert "preset: Input should be 'tiny'" in odd


def test_bundles_of_other_formats_say_what_to_do(bundle, tmp_path):
    for number, remedy in ((4, "run `python -m stages pretrain"), (6, "use a newer ssl-pipeline")):
        other = f'"format_version": {number}'.encode()
        said = load_damaged(
            bundle,
            tmp_path,
            BUNDLE_MANIFEST,
            lambda c, o=other: c.replace(b'"format_version": 5', o),
        )
        assert f"has format {number}, this version reads 5: {remedy}" in said


def test_a_change_of_the_encoder_code_is_detected(bundle, tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(bundle, folder)
    stored = load_file(folder / SELF_TEST_FILE)
    # Another spacing for the same tokens: as if positions had another unit.
    save_file({**stored, "spacing_mm": stored["spacing_mm"] * 1.001}, folder / SELF_TEST_FILE)
    manifest = json.loads((folder / BUNDLE_MANIFEST).read_text())
    manifest["sha256"][SELF_TEST_FILE] = sha256_file(folder / SELF_TEST_FILE)
    (folder / BUNDLE_MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="gives other tokens for its stored input") as said:
        load_encoder(folder)
    assert str(folder) in str(said.value) and "with torch 2." in str(said.value)


@pytest.mark.parametrize(("instructions", "threads"), [("default", 1), ("avx2", 3)])
def test_self_test_passes_on_other_instruction_sets_and_thread_counts(
    instructions, threads, tmp_path
):
    # Two tokens: where float32 has no digit left of a deep instance norm.
    folders = [
        save_random_bundle(tmp_path / model.name, model=model, crop=(16, 8, 8))
        for model in (ViT(), ResEnc(preset="L"))
    ]
    code = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[1]))\n"
        "from ssl_pipeline import load_encoder\n"
        "for folder in sys.argv[2:]: load_encoder(folder)"
    )
    env = {**os.environ, "ATEN_CPU_CAPABILITY": instructions, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", code, str(threads), *map(str, folders)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_neither_saving_nor_loading_uses_up_random_numbers(bundle, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    save_random_bundle(tmp_path / "encoder")
    load_encoder(tmp_path / "encoder")
    assert torch.equal(torch.rand(3), expected)


def test_a_given_crop_becomes_the_self_test_input(tmp_path):
    example = SelfTestInput(torch.ones(1, 1, 8, 16, 24), torch.tensor([[2.0, 1.0, 1.0]]))
    save_random_bundle(tmp_path / "encoder", example)
    stored = load_file(tmp_path / "encoder" / SELF_TEST_FILE)
    assert torch.equal(stored["crops"], example.crops) and stored["tokens"].shape == (1, 6, 128)
    load_encoder(tmp_path / "encoder")


def test_features_of_a_new_scan(bundle, tmp_path):
    path = tmp_path / "scan.nii.gz"
    nib.save(real_volume(), path)
    features = load_encoder(bundle).embed(path, modality="MR")
    assert features.vector.shape == (128,)
    assert features.tokens.shape == (len(features.centres_mm), 128)
    assert np.allclose(features.tokens.mean(axis=0), features.vector, atol=1e-5)


def test_tokens_lie_where_the_scan_has_voxels(bundle, tmp_path):
    image = real_volume()
    path = tmp_path / "scan.nii.gz"
    nib.save(image, path)
    centres = load_encoder(bundle).embed(path, modality="MR").centres_mm
    voxels = nib.affines.apply_affine(np.linalg.inv(image.affine), centres)
    assert voxels.min() > -1 and (voxels < np.array(image.shape)).all()
    assert np.allclose(
        np.sort(np.unique(np.round(np.diff(np.unique(voxels[:, 0].round(2))), 1))), 8
    )


def test_the_same_scan_in_another_orientation_has_the_same_features(bundle, tmp_path):
    image = real_volume()
    other = image.as_reoriented(nib.orientations.axcodes2ornt("PSL"))
    nib.save(image, tmp_path / "a.nii.gz")
    nib.save(other, tmp_path / "b.nii.gz")
    encoder = load_encoder(bundle)
    first, second = (encoder.embed(tmp_path / f"{n}.nii.gz", "MR").vector for n in "ab")
    assert np.allclose(first, second, atol=1e-4)


def test_errors_of_embedding_are_reported(bundle, tmp_path):
    with pytest.raises(UserError, match="no encoder bundle"):
        load_encoder(tmp_path)
    nib.save(real_volume(), tmp_path / "scan.nii.gz")
    with pytest.raises(UserError, match="does not say its modality"):
        load_encoder(bundle).embed(tmp_path / "scan.nii.gz")
    with pytest.raises(UserError, match="is not there"):
        load_encoder(bundle).embed(tmp_path / "none.nii.gz")

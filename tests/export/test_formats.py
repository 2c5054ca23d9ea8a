"""The encoder in other software: the same features, and a sentence where it does not fit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from ssl_pipeline import load_encoder
from ssl_pipeline.errors import UserError
from ssl_pipeline.export.formats import ENCODER_FORMATS, load_encoder_format
from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.models.unet_decoder import UNetDecoder
from stages.cli import main
from stages.commands.export import export_to_format
from stages.core.runner import ROOT
from tests.command_line import offline_prefix
from tests.conftest import real_volume
from tests.export.conftest import save_random_bundle
from tests.stages.conftest import run_cli

CROP = (16, 24, 32)
TOKENS = 24
NNUNET_NAMES = Path(__file__).parent / "nnunet_names.txt"


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """A bundle whose sides all differ, with LayerScale, normed queries and registers."""
    model = ViT(patch_voxels=(4, 8, 16), layer_scale=0.1, qk_norm=True, registers=3)
    return save_random_bundle(tmp_path_factory.mktemp("scaled") / "encoder", model=model, crop=CROP)


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory):
    """A bundle with the decoder that was trained along."""
    model = ResEnc(patch_voxels=(4, 8, 16))
    decoder = UNetDecoder(random_encoder(model, 7))
    folder = tmp_path_factory.mktemp("convolutional") / "encoder"
    return save_random_bundle(folder, model=model, crop=CROP, decoder=decoder)


def export_to_folder(bundle, name, folder):
    path = folder / f"encoder{load_encoder_format(name).SUFFIX}"
    export_to_format(bundle, name, path)
    return path


@pytest.mark.parametrize("name", ENCODER_FORMATS)
def test_every_format_is_one_path_that_says_what_it_is(name, tmp_path, request, capsys):
    bundle = request.getfixturevalue("convolutional" if name == "nnunet" else "bundle")
    path = export_to_folder(bundle, name, tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert str(path) in capsys.readouterr().out
    with pytest.raises(UserError, match=f"let it end in {load_encoder_format(name).SUFFIX}"):
        export_to_format(bundle, name, tmp_path / "encoder.other")


def test_weights_load_where_this_project_is_not_installed(bundle, tmp_path):
    path = export_to_folder(bundle, "state_dict", tmp_path)
    code = f"import torch; print(len(torch.load({str(path)!r}, weights_only=True)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    loaded, weights = load_encoder(bundle), torch.load(path, weights_only=True)
    assert int(done.stdout) == len(weights)
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(weights[name], value)


@pytest.mark.parametrize("name", ["scaled", "convolutional"])
def test_onnx_gives_the_tokens_of_torch_for_any_batch(name, tmp_path, request):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = request.getfixturevalue(name)
    path, encoder = export_to_folder(folder, "onnx", tmp_path), load_encoder(folder)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        crops, spacing_mm = torch.randn(batch, 1, *CROP), torch.rand(batch, 3) + 0.5
        given = {"crops": crops.numpy(), "spacing_mm": spacing_mm.numpy()}
        (said,) = session.run(["tokens"], given)
        with torch.inference_mode():
            expected = encoder.model(crops, spacing_mm).numpy()
        assert said.shape == expected.shape and np.allclose(said, expected, atol=1e-4)


def test_without_the_optional_packages_onnx_is_one_sentence(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", str(bundle), "--to", "onnx", "--out", str(tmp_path / "e.onnx")]) == 2
    sentence = "export: ONNX needs onnxscript: pip install 'ssl-pipeline[export]'.\n"
    assert capsys.readouterr().err == sentence


def test_an_export_writes_nothing_to_the_home_folder_and_needs_no_network(bundle, tmp_path):
    """The pinned onnxruntime would write a device's id there, to be sent to its maker."""
    pytest.importorskip("onnxruntime")
    home = tmp_path / "home"
    home.mkdir()
    words = ["export", bundle, "--to", "onnx", "--out", tmp_path / "e.onnx"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    done = run_cli(*words, before=offline_prefix(), env=env | {"HOME": str(home)})
    assert done.returncode == 0, done.stderr
    assert [path for path in home.rglob("*") if path.is_file()] == []


def code_snippets(bundle):
    """The model card's code, in its order."""
    return re.findall(r"```python\n(.*?)```", (bundle / "README.md").read_text(), re.DOTALL)


def test_all_code_of_model_cards_runs_as_it_stands(scaled, convolutional, tmp_path):
    """In a new process, the timm code first: nothing has mended torchvision before it."""
    pytest.importorskip("monai")
    lines, shown = ["import os"], []
    for bundle, token_shapes in (
        (scaled, [f"torch.Size([1, {TOKENS}, 128])"]),
        (convolutional, []),
    ):
        folder = tmp_path / bundle.parent.name
        folder.mkdir()
        (folder / "encoder").symlink_to(bundle)
        nib.save(real_volume(), folder / "scan.nii.gz")
        if token_shapes:
            export_to_format(bundle, "timm", folder / "encoder.timm.safetensors")
        snippets = [f"exec({text!r}, {{}})" for text in reversed(code_snippets(bundle))]
        assert len(snippets) == len(token_shapes) + 2
        lines += [f"os.chdir({str(folder)!r})", *snippets]
        shown += [*token_shapes, "torch.Size([1, 128, ", "(128,)"]
    command = [sys.executable, "-W", "ignore", "-c", "\n".join(lines)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert len(printed) == len(shown) and all(map(str.startswith, printed, shown)), printed


def test_timm_refuses_what_it_has_no_place_for(convolutional, tmp_path):
    with pytest.raises(UserError, match=r"no place for stem.* of this encoder: export it as"):
        export_to_format(convolutional, "timm", tmp_path / "encoder.safetensors")
    assert not list(tmp_path.iterdir())
    assert len(code_snippets(convolutional)) == 2, "its model card does not speak of timm"


def test_nnunet_finds_every_tensor_of_its_network_by_name_and_shape(convolutional, tmp_path):
    """The list is that of a `ResidualEncoderUNet` which nnU-Net built from the exported plans; its
    loader asks for all of these but those of classes.
    """
    path = export_to_folder(convolutional, "nnunet", tmp_path)
    found = torch.load(path / "checkpoint.pth", weights_only=True)["network_weights"]
    listed = [line.split() for line in NNUNET_NAMES.read_text().splitlines()]
    assert {name: "x".join(map(str, value.shape)) for name, value in found.items()} == {
        name: shape for name, shape in listed if ".seg_layers." not in name
    }
    loaded = load_encoder(convolutional)
    up = found["decoder.transpconvs.0.weight"]
    assert torch.equal(up, loaded.decoder["transpconvs.0.weight"])
    state = loaded.model.state_dict()
    shortcut = found["decoder.encoder.stages.1.blocks.0.skip.1.all_modules.0.weight"]
    assert torch.equal(shortcut, state["stages.1.blocks.0.shortcut.conv.weight"])
    assert torch.equal(found["encoder.stem.convs.0.norm.bias"], state["stem.shift"])


def test_the_plans_of_nnunet_scale_ct_as_pretraining_did(convolutional, tmp_path):
    path = export_to_folder(convolutional, "nnunet", tmp_path)
    content = json.loads((path / "SslPipelinePlans.json").read_text())
    properties = content["foreground_intensity_properties_per_channel"]["0"]
    hu = np.array([-3000.0, -1000.0, 40.0, 3000.0])
    low, high = properties["percentile_00_5"], properties["percentile_99_5"]
    theirs = (np.clip(hu, low, high) - properties["mean"]) / properties["std"]
    assert theirs.tolist() == [-2.0, -2.0, 0.08, 2.0]
    assert content["configurations"]["3d_fullres_ct"]["patch_size"] == list(CROP)


def test_nnunet_takes_no_transformer(bundle, tmp_path):
    with pytest.raises(UserError, match="no place for the encoder vit: pretrain one with model"):
        export_to_format(bundle, "nnunet", tmp_path / "encoder")
    assert not list(tmp_path.iterdir())


def test_the_model_card_tells_the_contract_and_no_path(bundle):
    said = (bundle / "README.md").read_text()
    for words in (
        "clipped to -1000 to 1000, less 0, divided by 500",
        "percentiles 0.5 and 99.5",
        "16 x 16 x 16 voxels (z, y, x), 8 tokens",
        "| steps | 0 |",
        "no medical device",
        "the owner of the data writes here",
    ):
        assert words in said
    assert str(bundle.parent) not in said


def test_the_door_knows_the_command(bundle, tmp_path):
    done = run_cli("export", bundle, "--to", "state_dict", "--out", tmp_path / "e.pt")
    assert done.returncode == 0 and "76 tensors for torch.load" in done.stdout, done.stderr

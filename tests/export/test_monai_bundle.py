"""A task model as a MONAI bundle: MONAI alone predicts what the pipeline does."""

import json
from importlib.util import find_spec

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from ssl_pipeline import load_model
from ssl_pipeline.errors import UserError
from ssl_pipeline.evaluation.finetuning.augmentation_config import CropAugmentation
from ssl_pipeline.evaluation.prediction.calibration import Calibration
from ssl_pipeline.models import ViT
from stages.commands.export import export_to_format
from tests.conftest import read_json
from tests.export.conftest import save_random_model

CALIBRATION = Calibration(
    temperature=1.5,
    n_subjects=10,
    error_before=0.2,
    error_after=0.1,
    scored_error_before=0.2,
    scored_error_after=0.1,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_random_model(
        tmp_path_factory.mktemp("model") / "model",
        augmentation=CropAugmentation(flip=("x",)),
        mirrored_views=True,
        largest_component=True,
        calibration=CALIBRATION,
    )


def run_bundle(bundle, scan):
    """The label map that MONAI writes of a scan, as it is run by its command."""
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs/inference.json"),
        meta_file=str(bundle / "configs/metadata.json"),
        logging_file=False,
        bundle_root=str(bundle),
        images=[str(scan)],
    )
    workflow.initialize()
    workflow.run()
    written = nib.load(bundle / "predictions/scan_seg.nii.gz")
    assert np.allclose(written.affine, nib.load(scan).affine)
    return np.asarray(written.dataobj)


def save_smooth_scan(path):
    """A CT of HU without noise, of four windows, mirrored in its file."""
    x, y, z = np.indices((48, 36, 16))
    hu = 300 * (np.sin(x / 7) + np.sin(y / 5) + np.sin(z / 3))
    nib.save(nib.Nifti1Image(hu.astype(np.int16), np.diag([-2.0, -2.0, 2.0, 1.0])), path)
    return path


def leave_out_largest_components(bundle):
    """Take the one transform that needs scikit-image out of a bundle."""
    config = read_json(bundle / "configs/inference.json")
    steps = config["postprocessing"]["transforms"]
    (largest,) = (at for at, each in enumerate(steps) if "Largest" in each["_target_"])
    del steps[largest]
    (bundle / "configs/inference.json").write_text(json.dumps(config))


@pytest.mark.filterwarnings("ignore")  # MONAI's, about its readers and transforms
def test_a_bundle_predicts_the_labels_of_the_pipeline_and_says_what_it_leaves_out(
    model, tmp_path, capsys
):
    """On a smooth CT of overlapping windows, mirrored in its file, in mirrored views."""
    scan, bundle = save_smooth_scan(tmp_path / "scan.nii.gz"), tmp_path / "bundle"
    export_to_format(model, "monai-bundle", bundle)
    said = " ".join(capsys.readouterr().out.split())
    for sentence in ("without the model's temperature of 1.5", "which needs scikit-image"):
        assert sentence in said and sentence in (bundle / "docs/README.md").read_text()
    loaded = load_model(model)
    expected = loaded.predict(scan, "CT").prediction.label_map
    if find_spec("skimage"):
        assert (run_bundle(bundle, scan) == expected).mean() > 0.999
    section = loaded.manifest.finetune.model_copy(update={"largest_component": False})
    loaded.predictor.section = section
    whole = loaded.predict(scan, "CT").prediction.label_map
    assert {0, 3, 7} == set(np.unique(whole)) and (whole != expected).any()
    leave_out_largest_components(bundle)
    assert (run_bundle(bundle, scan) == whole).mean() > 0.999


def test_what_a_bundle_cannot_hold_is_one_sentence(tmp_path):
    both = save_random_model(tmp_path / "both", modalities=("CT", "MR"))
    with pytest.raises(UserError, match="of one modality, and the model learned from CT and MR"):
        export_to_format(both, "monai-bundle", tmp_path / "bundle")
    tokens = save_random_model(tmp_path / "tokens", model=ViT())
    with pytest.raises(UserError, match="cannot tell a transformer each scan's own spacing"):
        export_to_format(tokens, "monai-bundle", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()

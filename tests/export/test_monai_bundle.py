"""A task model as a MONAI bundle: MONAI alone predicts what the pipeline does."""

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from ssl_pipeline import load_model
from ssl_pipeline.errors import UserError
from ssl_pipeline.models import ViT
from stages.commands.export import export_to_format
from tests.export.conftest import save_random_model

CROP = (32, 24, 16)  # (x, y, z), of the model, so that one window sees the scan


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_random_model(tmp_path_factory.mktemp("model") / "model")


@pytest.mark.filterwarnings("ignore")  # MONAI's, about its readers and transforms
def test_a_bundle_predicts_the_labels_of_the_pipeline(model, tmp_path):
    """On a CT of HU, mirrored in its file; where windows overlap, the smallest of their
    weights differ.
    """
    hu = np.random.default_rng(0).integers(-900, 900, CROP, dtype=np.int16)
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(hu, np.diag([-2.0, -2.0, 2.0, 1.0])), scan)
    bundle = tmp_path / "bundle"
    export_to_format(model, "monai-bundle", bundle)
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
    expected = load_model(model).predict(scan, "CT").prediction.label_map
    assert {0, 3, 7} == set(np.unique(expected))
    assert np.allclose(written.affine, nib.load(scan).affine)
    assert (np.asarray(written.dataobj) == expected).mean() > 0.999


def test_what_a_bundle_cannot_hold_is_one_sentence(tmp_path):
    both = save_random_model(tmp_path / "both", modalities=("CT", "MR"))
    with pytest.raises(UserError, match="of one modality, and the model learned from CT and MR"):
        export_to_format(both, "monai-bundle", tmp_path / "bundle")
    tokens = save_random_model(tmp_path / "tokens", model=ViT())
    with pytest.raises(UserError, match="cannot tell a transformer each scan's own spacing"):
        export_to_format(tokens, "monai-bundle", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()

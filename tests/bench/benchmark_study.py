"""A real store to train from: a part of the public head-and-neck CTs, or the packaged sample."""

import os
from pathlib import Path

from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.sampler import Sampler
from ssl_pipeline.volumes.config import Splits
from stages.core.runner import run_stage
from stages.core.study import Study
from stages.core.study_file import load_study

STUDIES = Path("workflows/studies")
SUBSET_PATTERN = "pt_1*.nii.gz"  # more subjects than a step has samples, so that all of them differ
PATCH = (8, 8, 8)


def prepare_study(folder: Path) -> Study:
    """The study, its volumes stored below `folder`; quick where they are there."""
    public = Path(os.environ.get("SSL_PIPELINE_DATA", "/nonexistent")) / "openkbp" / "images"
    if not public.is_dir():
        study = load_study(STUDIES / "demo.yaml")
        stages = ("download", "inventory", "preprocess")
    else:
        whole = load_study(STUDIES / "openkbp.yaml")
        roots = (whole.data.roots[0].model_copy(update={"include": SUBSET_PATTERN}),)
        splits = Splits.model_validate(
            {"fractions": {"val": 0, "test": 0}, "duplicate_threshold": None}
        )
        data = whole.data.model_copy(update={"roots": roots, "splits": splits})
        study = whole.model_copy(update={"data": data, "output": str(folder / "openkbp")})
        stages = ("inventory", "preprocess")
    for stage in stages:
        run_stage(stage, study, {})
    return study


def build_sampler(study: Study, views: Views, batch_size: int) -> Sampler:
    """The sampler of a run on the study's volumes."""
    stored = study.folder / "preprocess"
    catalog = Catalog.read(stored / "catalog.parquet")
    reader = CropReader(stored / "volumes", catalog)
    return Sampler(catalog.entries, reader, views, PATCH, batch_size=batch_size, seed=0)

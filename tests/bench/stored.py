"""A real store to train from: a part of the public head-and-neck CTs, or the packaged sample."""

import os
from pathlib import Path

from ssl_pipeline.store.catalog import Catalog
from ssl_pipeline.store.reader import CropReader
from ssl_pipeline.views.config import Views
from ssl_pipeline.views.sampler import Sampler
from ssl_pipeline.volumes.dataset import Splits
from stages.contract import perform
from stages.study import Study, load

STUDIES = Path("workflows/studies")
PART = "pt_1*.nii.gz"  # more subjects than a step has pairs, so that all of them differ
PATCH = (8, 8, 8)


def prepared(folder: Path) -> Study:
    """The study, its volumes stored below `folder`; quick where they are there."""
    public = Path(os.environ.get("SSL_PIPELINE_DATA", "/nonexistent")) / "openkbp" / "images"
    if not public.is_dir():
        study = load(STUDIES / "demo.yaml")
        stages = ("sample", "inventory", "preprocess")
    else:
        whole = load(STUDIES / "openkbp.yaml")
        roots = (whole.data.roots[0].model_copy(update={"include": PART}),)
        splits = Splits.model_validate(
            {"fractions": {"val": 0, "test": 0}, "copies_likeness": None}
        )
        data = whole.data.model_copy(update={"roots": roots, "splits": splits})
        study = whole.model_copy(update={"data": data, "output": str(folder / "openkbp")})
        stages = ("inventory", "preprocess")
    for stage in stages:
        perform(stage, study, {})
    return study


def sampler(study: Study, views: Views, pairs: int) -> Sampler:
    """What draws a run's samples from it."""
    stored = study.folder / "preprocess"
    catalog = Catalog.read(stored / "catalog.parquet")
    reader = CropReader(stored / "volumes", catalog)
    return Sampler(catalog.entries, reader, views, PATCH, pairs=pairs, seed=0)

"""Tasks that an encoder is evaluated on; a new kind is one file and one line in this union."""

from typing import Annotated

from pydantic import Field

from ssl_pipeline.evaluation.tasks.classification import Classification
from ssl_pipeline.evaluation.tasks.correspondence import Correspondence
from ssl_pipeline.evaluation.tasks.crop_classification import CropClassification
from ssl_pipeline.evaluation.tasks.regression import Regression
from ssl_pipeline.evaluation.tasks.segmentation import Segmentation

TaskConfig = Annotated[
    Classification | Correspondence | CropClassification | Regression | Segmentation,
    Field(discriminator="kind"),
]

"""Terms of objectives: a new one is one file and one line in this union."""

from typing import Annotated, get_args

from pydantic import Field

from ssl_pipeline.objectives.terms.dense_contrast import DenseContrast
from ssl_pipeline.objectives.terms.dino import Dino
from ssl_pipeline.objectives.terms.ibot import Ibot
from ssl_pipeline.objectives.terms.koleo import Koleo
from ssl_pipeline.objectives.terms.lejepa import Lejepa
from ssl_pipeline.objectives.terms.local_contrast import LocalContrast
from ssl_pipeline.objectives.terms.partner_reconstruction import PartnerReconstruction
from ssl_pipeline.objectives.terms.reconstruction import Reconstruction
from ssl_pipeline.objectives.terms.retain import Retain
from ssl_pipeline.objectives.terms.subject_contrast import SubjectContrast
from ssl_pipeline.objectives.terms.target_prediction import TargetPrediction
from ssl_pipeline.objectives.terms.term import Term

TermConfig = Annotated[
    Reconstruction
    | PartnerReconstruction
    | SubjectContrast
    | LocalContrast
    | DenseContrast
    | Dino
    | Ibot
    | Koleo
    | Lejepa
    | Retain
    | TargetPrediction,
    Field(discriminator="name"),
]
TERMS: dict[str, type[Term]] = {
    term.model_fields["name"].default: term for term in get_args(get_args(TermConfig)[0])
}

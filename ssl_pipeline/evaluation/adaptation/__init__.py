"""Methods that adapt an encoder; adding one is one file and one line in this union."""

from typing import Annotated, get_args

from pydantic import Field

from ssl_pipeline.evaluation.adaptation.adapters import Adapters
from ssl_pipeline.evaluation.adaptation.attentive import Attentive
from ssl_pipeline.evaluation.adaptation.bitfit import BitFit
from ssl_pipeline.evaluation.adaptation.dora import Dora
from ssl_pipeline.evaluation.adaptation.full import Full
from ssl_pipeline.evaluation.adaptation.last_block import LastBlock
from ssl_pipeline.evaluation.adaptation.lora import Lora
from ssl_pipeline.evaluation.adaptation.prompts import Prompts
from ssl_pipeline.evaluation.adaptation.scale_shift import ScaleShift

AdaptationMethod = Annotated[
    Adapters | Attentive | BitFit | Dora | Full | LastBlock | Lora | Prompts | ScaleShift,
    Field(discriminator="name"),
]
_KINDS = get_args(get_args(AdaptationMethod)[0])
TITLES: dict[str, str] = {kind.model_fields["name"].default: kind.TITLE for kind in _KINDS}

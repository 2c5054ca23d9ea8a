"""Which scans to label next; adding a strategy is one file and one line in this union."""

from typing import Annotated, get_args

from pydantic import Field, TypeAdapter

from ssl_pipeline.review.next_labels.coverage import Coverage
from ssl_pipeline.review.next_labels.entropy import Entropy
from ssl_pipeline.review.next_labels.noisy_entropy import NoisyEntropy
from ssl_pipeline.review.next_labels.strategy import LabelPool, LabelStrategy
from ssl_pipeline.review.next_labels.stratified import Stratified
from ssl_pipeline.review.next_labels.typical import Typical

__all__ = ["TITLES", "LabelPool", "LabelStrategy", "StrategyConfig", "strategy_named"]

StrategyConfig = Annotated[
    Stratified | Typical | Coverage | Entropy | NoisyEntropy,
    Field(discriminator="name"),
]
_KINDS = get_args(get_args(StrategyConfig)[0])
TITLES: dict[str, str] = {kind.model_fields["name"].default: kind.TITLE for kind in _KINDS}


def strategy_named(name: str) -> LabelStrategy:
    """The strategy with a name of TITLES."""
    strategy: LabelStrategy = TypeAdapter(StrategyConfig).validate_python({"name": name})
    return strategy

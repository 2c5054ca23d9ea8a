"""The contract of all terms of objectives, and a new term in a file of its own."""

import importlib.util
import sys
from typing import Annotated, Union

import pytest
import torch
from pydantic import Field, create_model

from ssl_pipeline.models import ResEnc, ViT
from ssl_pipeline.models.encoder import random_encoder
from ssl_pipeline.monitoring.config import Monitoring
from ssl_pipeline.objectives import Custom
from ssl_pipeline.objectives.terms import TERMS
from ssl_pipeline.objectives.terms.subject_contrast import SubjectContrast
from ssl_pipeline.objectives.terms.target_prediction import TargetPrediction
from ssl_pipeline.objectives.terms.term import SummedTerm, VectorTerm, diagnosis_rules
from ssl_pipeline.training.metrics_log import read_metrics
from ssl_pipeline.training.metrics_registry import METRICS
from tests.training.small_trainer import (
    MODEL,
    THROUGH_UNET,
    flat_weights,
    small_trainer,
    trained_weights,
)

OF_AGE = TargetPrediction(targets={"age": {"kind": "number", "mean": 4.5, "std": 0.5}})
SECTIONS = [
    *(term() for term in TERMS.values() if term is not TargetPrediction),
    OF_AGE,
    *THROUGH_UNET,
    SubjectContrast(similar_by={"side": "equal"}),
]
MONITORING = Monitoring(snapshot_every=2, snapshot_samples=6, stop_on=())
TOKEN_NORM = '''
"""Squared norm of tokens."""

from typing import Literal

from torch import nn

from ssl_pipeline.objectives.terms.term import SummedTerm, TermCost


class TokenNorm(SummedTerm):
    """Mean squared norm of projected tokens."""

    METRICS = {"token_norm": "mean squared norm of projected tokens", "crop_count": "crops"}

    name: Literal["token_norm"] = "token_norm"

    def metadata_used(self):
        return ()

    def min_batch_size(self):
        return 1

    def cost(self, model, visible, hidden):
        return TermCost(model.width + 1, 2 * visible * model.width, visible)

    def build_head(self, encoder):
        return nn.Linear(encoder.dim, 1)

    def count(self, crops):
        return crops.batch.spacing_mm.new_tensor(float(crops.batch.visible.numel()))

    def sum_and_count(self, head, crops, outputs):
        return head(outputs.tokens).square().sum(), self.count(crops)

    def snapshot_metrics(self, head, encoded):
        return {"crop_count": float(len(encoded.images))}
'''


@pytest.fixture(params=SECTIONS, ids=lambda term: f"{term.name}-{len(term.metadata_used())}")
def term(request):
    return request.param


@pytest.mark.parametrize("model", [ViT(patch_voxels=(4, 8, 8)), ResEnc()], ids=str)
def test_a_term_costs_the_parameters_of_its_head(term, model):
    head = term.build_head(model.build())
    cost = term.cost(model, 12, 36)
    assert cost.parameter_count == sum(p.numel() for p in head.parameters())
    assert cost.forward_flops > 0 and cost.activation_count >= 0


def test_a_term_has_a_column_for_each_name_that_it_reads(term, catalog):
    features = term.metadata_features(catalog.entries)
    assert features.shape == (len(catalog.entries), term.metadata_width)
    assert term.metadata_width >= len(term.metadata_used())


def test_a_term_without_weight_needs_no_batch(term):
    assert term.min_batch_size() >= 1
    assert term.model_copy(update={"weight": 0}).min_batch_size() == 1


def test_a_term_is_of_one_kind_and_describes_its_loss(term):
    assert isinstance(term, SummedTerm) != isinstance(term, VectorTerm)
    assert term.name in term.METRICS
    for _, rule in term.RULES:
        assert {rule.metric, rule.minus} - {""} <= term.METRICS.keys()


def test_no_two_terms_share_a_metric():
    names = [name for term in TERMS.values() for name in term.METRICS]
    assert len(set(names)) == len(names) and set(names) <= METRICS.keys()


def test_a_run_of_one_term_logs_all_metrics_of_it_and_none_of_others(term, study, tmp_path):
    objective = Custom(terms=(term,))
    small_trainer(tmp_path, study.folder, objective, steps=2, monitoring=MONITORING).train()
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    undefined = {"empty_share", "swapped_share"}  # of a loss that has learned nothing yet
    kinds = {name.partition("/")[0] for name in last}
    assert kinds >= term.METRICS.keys() - undefined
    others = {name for other in TERMS.values() for name in other.METRICS} - term.METRICS.keys()
    assert not kinds & others
    assert last["loss"] == pytest.approx(last[term.name], rel=1e-5)


def test_the_metadata_of_a_term_are_its_own_columns(study, tmp_path):
    """Terms that read nothing leave the others their columns."""
    ends = []
    for name, terms in {
        "before": (TERMS["local_contrast"](), SECTIONS[-1]),
        "after": (SECTIONS[-1], TERMS["local_contrast"]()),
    }.items():
        run = small_trainer(tmp_path / name, study.folder, Custom(terms=terms))
        batch, _ = run.make_views(run.sampler.batch(0))
        outputs = run.objective.forward_statistics(batch, batch.clean)
        ends.append(run.objective.metadata_of(SECTIONS[-1], outputs.metadata).features)
        assert run.objective.metadata_of(
            TERMS["local_contrast"](), outputs.metadata
        ).features.shape == (4, 0)
    assert ends[0].shape == (4, 1) and torch.equal(ends[0].nan_to_num(), ends[1].nan_to_num())


def test_a_new_term_is_one_file_and_one_line_in_the_union(study, tmp_path):
    file = tmp_path / "token_norm.py"
    file.write_text(TOKEN_NORM)
    spec = importlib.util.spec_from_file_location("token_norm", file)
    module = sys.modules["token_norm"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    union = Annotated[Union[*TERMS.values(), module.TokenNorm], Field(discriminator="name")]
    extended = create_model("Extended", __base__=Custom, terms=(tuple[union, ...], ...))
    objective = extended.model_validate(
        {"terms": [{"name": "reconstruction"}, {"name": "token_norm", "ramp": {"end": 0.2}}]}
    )
    assert diagnosis_rules(objective.list_terms()) == list(TERMS["reconstruction"].RULES)
    run = small_trainer(tmp_path / "run", study.folder, objective, steps=2, monitoring=MONITORING)
    head = run.objective.heads["token_norm"].weight.clone()
    encoder = trained_weights(run)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert not torch.equal(encoder, flat_weights(random_encoder(MODEL, 0)))
    assert not torch.equal(run.objective.heads["token_norm"].weight, head)
    assert rows[-1]["crop_count"] == 8 and rows[-1]["gradient_ratio"] > 0
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["reconstruction"] + rows[-1]["token_norm"])

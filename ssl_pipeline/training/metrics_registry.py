"""The metrics of a run by name: all that a row of its log may hold, with descriptions.

Those of a term of an objective stand beside the term. A metric that has no meaning for a run (no
contrast, one site) is left out of its rows, or nan.
"""

from ssl_pipeline.objectives.terms import TERMS

METRICS: dict[str, str] = {
    # Time.
    "step": "optimizer steps done",
    "progress": "fraction of the run that is done, from 0 to 1",
    "ramp_factor": "smallest factor of a term's weight, from 0 to 1 (1 without a ramp)",
    # The losses, as the loop logs them.
    "loss": "weighted sum of the losses",
    "gradient_norm": "norm of the gradient before clipping",
    "gradient_ratio": "gradient norm of the terms that are ramped in over that of the others, on "
    "the encoder",
    # The terms: their losses, and what shows how they are solved.
    **{name: text for term in TERMS.values() for name, text in term.METRICS.items()},
    # Distribution of embeddings.
    "rankme": "effective rank (RankMe) of the embeddings of the snapshot samples",
    "rankme_share": "effective rank over that of random numbers of the same shape",
    "embedding_drift": "relative change of the embeddings since the last snapshot",
    # What nearest neighbours predict of a sample.
    "region_accuracy": "balanced accuracy of kNN on the body region",
    "region_chance": "balanced accuracy on the body region by guessing",
    "position_r2": "fraction of the variance of a crop's position in its scan that kNN explains",
    "sequence_accuracy": "balanced accuracy of kNN on the modality",
    "sequence_chance": "balanced accuracy on the modality by guessing",
    "same_subject_auc": "how often a sample of the same subject is nearer than one of another: "
    "0.5 chance",
    # Shortcuts.
    "retrieval_accuracy": "fraction of second views that embeddings retrieve",
    "histogram_retrieval": "fraction of second views that intensity histograms alone retrieve",
    "retrieval_chance": "fraction of second views that guessing retrieves",
    "site_accuracy": "balanced accuracy of kNN on the site",
    "histogram_site_accuracy": "balanced accuracy of kNN on the site by intensity histograms alone",
    "site_chance": "balanced accuracy on the site by guessing",
    # Utilization.
    "samples_per_s": "samples trained on per second",
    "data_wait": "fraction of time that a rank waited for data, the largest of all ranks",
    "mfu": "model FLOPs utilization: fraction of the device's peak (specified, else measured)",
}


def metric_text(name: str) -> str:
    """What a metric of a log is; one of several of a kind is called `kind/which`."""
    kind, _, which = name.partition("/")
    return f"{METRICS[kind]} ({which})" if which else METRICS[kind]

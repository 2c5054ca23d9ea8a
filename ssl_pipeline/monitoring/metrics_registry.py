"""The signs of a run by name: what a record may hold, and what each number means.

A sign that makes no sense for a run (no contrast, one site) is left out of its records, or nan.
"""

METRICS: dict[str, str] = {
    # When.
    "step": "optimizer steps done",
    "progress": "share of the run that is done, from 0 to 1",
    "contrast_factor": "factor of contrast, from 0 to 1 (1 where nothing is ramped)",
    # The losses, as the loop logs them.
    "loss": "weighted sum of the losses",
    "reconstruction": "loss of rebuilding hidden patches (Huber, in units of model input or patch)",
    "subject_contrast": "loss between subjects, in nats",
    "subject_contrast_snapshot": "loss between subjects on the bank, in nats",
    "subject_contrast_chance": "loss between subjects on the bank where all vectors are alike, in nats",
    "local_contrast": "loss between places of a scan, in nats",
    "gradient_norm": "norm of the gradient before clipping",
    "gradient_ratio": "gradient norm of contrast over that of reconstruction, on the encoder",
    # Rebuilding.
    "reconstruction_skill": "share of in-painting's error that rebuilding saves in the body: 1 perfect, 0 none",
    "gradient_outside_body": "share of the gradient of rebuilding that lies outside the body",
    # How embeddings fill their space; the first four of projected vectors, with contrast alone.
    "alignment": "squared distance of two views of a place: 0 agree, 2 unrelated",
    "uniformity": "how evenly vectors fill the sphere: about -4 evenly, 0 collapsed",
    "dimension_std": "spread a dimension of unit vectors: 1 even, 0 collapsed",
    "close_negative_share": "share of pairs of different subjects whose cosine is above 0.9",
    "rankme": "effective rank (RankMe) of the bank's embeddings",
    "rankme_share": "effective rank over that of random numbers of the same shape",
    "embedding_drift": "change of the bank's embeddings since the last record, as a share of their length",
    # What neighbours tell of a place.
    "region_accuracy": "balanced accuracy on the body region, by neighbours",
    "region_chance": "balanced accuracy on the body region, by guessing",
    "position_r2": "share of the variance of a crop's place in its scan that neighbours explain",
    "sequence_accuracy": "balanced accuracy on the sequence, by neighbours",
    "sequence_chance": "balanced accuracy on the sequence, by guessing",
    "same_subject_auc": "how often a place of the same subject is nearer than another's: 0.5 chance",
    # Shortcuts.
    "retrieval_accuracy": "share of second views found by embeddings",
    "histogram_retrieval": "share of second views found by histograms of grey values alone",
    "same_subject_loss": "loss between subjects, in nats, where all places are of one: 0 is sound",
    "retrieval_chance": "share of second views found by guessing",
    "local_contrast_real": "loss between places on the bank, in nats",
    "local_contrast_empty": "loss between places on crops without content, in nats",
    "local_contrast_swapped": "loss between places where second views show another place, in nats",
    "local_contrast_chance": "loss between places where all tokens are alike, in nats",
    "empty_share": "share of the local loss's drop from chance that empty crops reach as well",
    "swapped_share": "share of that drop that is left where contents are swapped: 1 none is used",
    "position_shortcut": "share of chance that the local loss of empty crops, moved apart, loses: 1 solved by "
    "knowing where crops lie, 0 or less by what is seen",
    "site_accuracy": "balanced accuracy on the site, by neighbours",
    "histogram_site_accuracy": "balanced accuracy on the site, by histograms of grey values alone",
    "site_chance": "balanced accuracy on the site, by guessing",
    # Effort.
    "samples_per_s": "places trained on a second",
    "data_wait": "share of the time that a rank waited for data, the largest of all (starvation)",
    "mfu": "share of the device's peak (stated, else timed) that the model's operations take",
}

"""The metrics of a run by name: all that a row of its log may hold, with descriptions.

A metric that has no meaning for a run (no contrast, one site) is left out of its rows, or nan.
"""

METRICS: dict[str, str] = {
    # Time.
    "step": "optimizer steps done",
    "progress": "fraction of the run that is done, from 0 to 1",
    "contrast_factor": "factor of the contrast terms, from 0 to 1 (1 without a ramp)",
    # The losses, as the loop logs them.
    "loss": "weighted sum of the losses",
    "reconstruction": "loss of masked reconstruction (Huber, in units of model input or patch)",
    "subject_contrast": "loss between subjects, in nats",
    "subject_contrast_snapshot": "loss between subjects on the snapshot samples, in nats",
    "subject_contrast_chance": "the same where all vectors are equal, in nats",
    "local_contrast": "loss between locations of a scan, in nats",
    "gradient_norm": "norm of the gradient before clipping",
    "gradient_ratio": "gradient norm of contrast over that of reconstruction, on the encoder",
    # Reconstruction.
    "reconstruction_skill": "fraction of in-painting's error that the model saves inside the body: "
    "1 perfect, 0 none",
    "gradient_outside_body": "fraction of the reconstruction gradient that lies outside the body",
    # Distribution of embeddings; the first four of projections, with contrast alone.
    "alignment": "squared distance of the two views of a sample: 0 equal, 2 unrelated",
    "uniformity": "how evenly vectors fill the sphere: about -4 evenly, 0 collapsed",
    "dimension_std": "scaled standard deviation per dimension of unit vectors: 1 even, 0 collapsed",
    "close_negative_share": "fraction of pairs of different subjects whose cosine is above 0.9",
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
    "same_subject_loss": "loss between subjects, in nats, where all samples are of one: 0 correct",
    "retrieval_chance": "fraction of second views that guessing retrieves",
    "local_contrast_real": "loss between locations on the snapshot samples, in nats",
    "local_contrast_empty": "loss between locations on crops without content, in nats",
    "local_contrast_swapped": "loss between locations where second views show another sample, in "
    "nats",
    "local_contrast_chance": "loss between locations where all tokens are equal, in nats",
    "empty_share": "fraction of the local loss's drop from chance that empty crops reach as well",
    "swapped_share": "fraction of that drop that is left where contents are swapped: 1 none used",
    "position_shortcut": "how far the local loss of empty crops, moved apart, falls below chance: "
    "1 solved by knowing where crops lie, 0 or less by their content",
    "site_accuracy": "balanced accuracy of kNN on the site",
    "histogram_site_accuracy": "balanced accuracy of kNN on the site by intensity histograms alone",
    "site_chance": "balanced accuracy on the site by guessing",
    # Utilization.
    "samples_per_s": "samples trained on per second",
    "data_wait": "fraction of time that a rank waited for data, the largest of all ranks",
    "mfu": "model FLOPs utilization: fraction of the device's peak (specified, else measured)",
}

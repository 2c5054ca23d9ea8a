"""Largest components: of each class, or of those that are better so, one connected part is kept."""

from collections.abc import Collection, Iterable

import numpy as np
import scipy
from numpy.typing import NDArray

from ssl_pipeline.evaluation.config import Finetune
from ssl_pipeline.evaluation.data.label_maps import IGNORE_LABEL
from ssl_pipeline.evaluation.metrics.segmentation import dice

LabelledScan = tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[bool, ...]]


def clean_classes(classes: NDArray[np.uint8], section: Finetune) -> NDArray[np.uint8]:
    """Predicted classes (three axes), each its largest component alone where the study says so."""
    chosen = section.largest_component
    assert chosen != "auto", "a network's cell chooses, see `settled_section`"
    if chosen is False:
        return classes
    return largest_components(classes, None if chosen is True else chosen)


def largest_components(
    classes: NDArray[np.uint8], chosen: Collection[int] | None = None
) -> NDArray[np.uint8]:
    """Classes (three axes) with the largest connected component of each alone; faces connect.

    Of the classes that are not among `chosen`, where some are, all is kept.
    """
    cleaned = classes.copy()
    for index in np.unique(classes[classes > 0]):
        if chosen is not None and index not in chosen:
            continue
        cleaned[classes == index] = 0
        components, _ = scipy.ndimage.label(classes == index)
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        cleaned[components == sizes.argmax()] = index
    return cleaned


def classes_to_clean(scans: Iterable[LabelledScan]) -> tuple[int, ...]:
    """Classes whose mean Dice over scans rises where one component alone is kept, 1 the first.

    Of each scan the predicted classes and the true ones (three axes), and which are annotated.
    """
    gains = [
        np.subtract(
            dice(largest_components(classes), truth, annotated, IGNORE_LABEL),
            dice(classes, truth, annotated, IGNORE_LABEL),
        )
        for classes, truth, annotated in scans
    ]
    means = np.nan_to_num(gains).mean(axis=0)
    return tuple(index for index, gain in enumerate(means.tolist(), start=1) if gain > 0)

"""Import public weights as an encoder bundle, without further training: `ssl-pipeline import`.

The bundle can be evaluated beside the encoders that a study trains (`evaluate.encoders`).
"""

from pathlib import Path

from ssl_pipeline.errors import UserError
from ssl_pipeline.export import training_subjects
from ssl_pipeline.export.manifest import BUNDLE_MANIFEST
from ssl_pipeline.progress import info
from ssl_pipeline.volumes.inventory import read_salt_fingerprint
from stages.core import layout
from stages.core.records import manifest_hash
from stages.core.study import Study
from stages.pretrain import write_bundle
from stages.trainer import random_encoder


def import_weights(study: Study, out: Path) -> None:
    """Write the weights of `init_from` as a bundle with the study's model and preprocessing.

    Raises UserError where the study names no weights, they do not fit its model, the inventory has
    not run, or `out` holds something else.
    """
    from ssl_pipeline.init_from.transfer import load_pretrained
    from ssl_pipeline.models.unet_decoder import PretrainedNetwork

    start = study.init_from
    if start is None:
        raise UserError(f"{study.name} names no weights: say in `init_from` what to import.")
    if out.exists() and any(out.iterdir()) and not (out / BUNDLE_MANIFEST).exists():
        raise UserError(f"{out} holds something that is no encoder: name another folder.")
    manifest_hash(study, "inventory")  # its salt decides the pseudonyms of subjects
    encoder = random_encoder(study, study.seed)
    report = load_pretrained(encoder, start.read(), start.description)
    trained = {"study": study.name, "objective": "none, as they came", "init_from": report}
    write_bundle(study, out, PretrainedNetwork(encoder, None), trained)
    salt = read_salt_fingerprint(layout.inventory_table(study))
    training_subjects.write(out, (), (), salt, start.read_training_subjects())
    info(report)
    info(f"{out}: name it in evaluate.encoders of a study with this model and preprocessing.")

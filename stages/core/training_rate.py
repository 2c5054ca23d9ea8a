"""Rate of pretraining before it runs: calibrated, measured in an earlier run, or assumed.

Calibrations (`ssl-pipeline calibrate`) count for the kind of device that they were made on. One of
other crops, models or batches gives the operations a second that the device reaches, from which the
rate of the present ones follows.
"""

import statistics

from ssl_pipeline.export.manifest import BUNDLE_MANIFEST
from ssl_pipeline.io.records import parse_object, read_json_if_whole, read_record_if_whole
from ssl_pipeline.objectives.cost import TrainingCost
from ssl_pipeline.training import cost
from ssl_pipeline.training.calibration import TrainingCalibration
from ssl_pipeline.training.metrics_log import read_metrics
from ssl_pipeline.training.run_record import read_run_record
from stages.core import layout
from stages.core.resources import Quantity, assumed, measured
from stages.core.study import Study

RATE_KEYS = (  # settings that the rate depends on, and the memory
    *("store", "views", "model", "objective"),
    *("training.batch_size", "training.precision", "training.ema_decay"),
)


def rate_hash(study: Study) -> str:
    """Hash of the settings that the rate of pretraining depends on."""
    return study.sections_hash(RATE_KEYS, {})


def calibration_source(calibration: TrainingCalibration) -> str:
    """Where and when it was measured, in words."""
    day = calibration.measured_at.partition("T")[0]
    return f"`calibrate --on {calibration.profile}` of {day} on {calibration.device_name}"


def exact_calibration(study: Study, has_gpu: bool, ranks: int) -> TrainingCalibration | None:
    """The newest calibration of these settings on such a device and as many ranks."""
    found = [each for each in _calibrations(study, has_gpu) if each.ranks == ranks]
    return next((c for c in found if c.settings_hash == rate_hash(study)), None)


def samples_per_s(study: Study, sample_cost: TrainingCost, has_gpu: bool) -> Quantity:
    """Samples a second of one GPU or core, by what is known best."""
    calibrations = _calibrations(study, has_gpu)
    own = rate_hash(study)
    exact = next((each for each in calibrations if each.settings_hash == own), None)
    if exact:
        step_s = exact.pace.seconds_per_step(study.training, study.monitoring)
        rate = exact.batch_size / step_s
        return measured(
            rate / _workers(exact), f"{rate:.3g} samples/s by {calibration_source(exact)}"
        )
    earlier = _rate_of_earlier_run(study, has_gpu)
    if earlier:
        return earlier
    for other in calibrations:
        rate = other.samples_per_s * other.sample_flops / sample_cost.sample_flops
        source = f"{rate:.3g} samples/s, from the operations a second of other settings"
        return measured(rate / _workers(other), f"{source} by {calibration_source(other)}")
    rate = cost.samples_per_s(sample_cost, has_gpu)
    where = "one H100, as fast as it is fed" if has_gpu else "a core with AVX-512"
    return assumed(rate, f"{rate:.3g} samples/s on {where}")


def _calibrations(study: Study, has_gpu: bool) -> list[TrainingCalibration]:
    """Calibrations on such a device, the newest first; damaged ones are left out."""
    paths = sorted(layout.calibrate_folder(study).glob("*.json"))
    found = (read_record_if_whole(TrainingCalibration, path) for path in paths)
    fitting = [each for each in found if each and (each.device != "cpu") == has_gpu]
    return sorted(fitting, key=lambda each: each.measured_at, reverse=True)


def _workers(calibration: TrainingCalibration) -> int:
    """The GPUs or cores that it was measured on."""
    return calibration.ranks * (1 if calibration.device != "cpu" else calibration.threads)


def _rate_of_earlier_run(study: Study, has_gpu: bool) -> Quantity | None:
    """The median rate of the newest run of this model, crop and objective, where there is one."""
    out, manifest = study.stage_folder("pretrain", {}), study.encoder / BUNDLE_MANIFEST
    done = read_run_record(out)
    card = read_json_if_whole(parse_object, manifest) or {}
    if not done or not {"model", "crop_voxels"} <= card.keys():
        return None
    same = card["model"] == study.model.model_dump(mode="json")
    same &= card["crop_voxels"] == list(study.views.crop_voxels)
    same &= done.objective == study.objective.name
    rows = read_metrics(layout.metrics_log(out / done.folder))
    if not (same and rows and (done.device != "cpu") == has_gpu):
        return None
    rate = statistics.median(row["samples_per_s"] for row in rows)
    workers = done.ranks if has_gpu else done.ranks * done.threads
    return measured(rate / workers, f"{rate:.3g} samples/s in {done.folder}")

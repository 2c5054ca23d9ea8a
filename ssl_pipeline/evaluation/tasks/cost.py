"""Cost of a task beside that of the encoder, and the sizes of its scans that it is counted from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CostInputs:
    """What is evaluated, and the number and sizes of the task's scans."""

    initializations: tuple[str, ...]
    writes_label_maps: bool  # on the stored grid; trials of an ablation share those of the study
    train_subjects: int
    train_scans: int
    test_scans: int
    voxels: tuple[float, ...]  # of all of them, stored
    test_voxels: float  # of those that are scored, stored
    raw_test_voxels: int  # of the same, in their own grids
    largest_test_scan: int  # voxels of the largest of them, in its own grid
    calibration_subjects: int = 0  # neither trained on nor scored
    calibration_voxels: float = 0.0  # of their scans, stored
    scan_features: int = 0  # files of vectors that probes score beside the initializations


@dataclass(frozen=True)
class TaskCost:
    """Cost of one cell of a task, beside that of the encoder."""

    probed_crops: int  # training and test crops whose features a probe takes
    forward_passes: float  # over crops, to score the test scans once
    prediction_bytes: float  # of a cell's file
    head_flops: float = 0.0  # of a forward pass
    map_files: int = 0  # of a cell whose predicted label maps are kept
    map_bytes: float = 0.0  # of the same
    label_files: int = 0  # saved label maps on the stored grid
    label_bytes: float = 0.0  # of the same
    scoring_bytes: float = 0.0  # of memory, to score the largest scan in its own grid

"""Self-supervised pretraining of 3D encoders on CT and MR volumes, and their evaluation.

    from ssl_pipeline import load_encoder

    encoder = load_encoder("build/demo/pretrain/encoder")
    features = encoder.embed("scan.nii.gz", modality="CT")

Importing this package imports no torch; `load_encoder` and `load_model` do. It also turns off the
telemetry of libraries.
"""

from typing import TYPE_CHECKING, Any

from ssl_pipeline.telemetry import disable_telemetry

if TYPE_CHECKING:
    from ssl_pipeline.export.bundle import load_encoder
    from ssl_pipeline.export.task_model.bundle import load_model

__all__ = ["load_encoder", "load_model"]
__version__ = "0.1.0"

disable_telemetry()


def __getattr__(name: str) -> Any:
    if name == "load_encoder":
        from ssl_pipeline.export.bundle import load_encoder

        return load_encoder
    if name == "load_model":
        from ssl_pipeline.export.task_model.bundle import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

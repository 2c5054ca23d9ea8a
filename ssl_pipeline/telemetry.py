"""Keep libraries from reporting the use of this machine to their makers.

Scans are of patients, and machines that hold them tell nobody what runs on them. onnxruntime writes
an id of the device below the home folder and collects events to be sent; huggingface_hub, which
timm brings, counts what is loaded. Both are asked not to by environment variables, which they read
when they are imported: so importing this package sets them first. A user's own values stay.
"""

import os

OPT_OUTS = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def disable_telemetry() -> None:
    """Set the variables by which libraries report nothing, where they are not set."""
    for name, value in OPT_OUTS.items():
        os.environ.setdefault(name, value)

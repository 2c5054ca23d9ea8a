"""What `command_line` imports before it forks: all that commands import one by one."""

# ruff: noqa: F401
import warnings

import snakemake.cli

import ssl_pipeline.evaluation.runner.crop_finetuning
import ssl_pipeline.evaluation.runner.segmentation_cells
import ssl_pipeline.export.bundle
import ssl_pipeline.init_from.transfer
import ssl_pipeline.training.feature_pca
import ssl_pipeline.training.loop
import stages.core.workflow
from stages.core.stage import load_stages

load_stages()
warnings.simplefilter("default")  # a command that warns says more than its sentence

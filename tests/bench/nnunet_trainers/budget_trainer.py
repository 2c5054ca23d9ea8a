"""nnU-Net's own trainer with a budget of iterations; it runs in nnU-Net's environment.

nnU-Net finds it by the variable `nnUNet_extTrainer`. Nothing of its recipe is changed but how long
it trains: the learning rate falls over `EPOCHS` epochs as it would over 1000. The seconds of the
processor that training took, data and augmentation included, are written beside the checkpoint.
"""

import json
import os
import time
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

EPOCHS = 10


class BudgetTrainer(nnUNetTrainer):
    """Trains for `BENCH_ITERATIONS` iterations, or a few more, on one thread."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cpu"),  # noqa: B008
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        wanted = int(os.environ["BENCH_ITERATIONS"])
        self.num_epochs = min(EPOCHS, wanted)
        self.num_iterations_per_epoch = -(-wanted // self.num_epochs)
        self.num_val_iterations_per_epoch = 1
        self.save_every = 1
        self.seconds_file = Path(self.output_folder) / "seconds.json"

    def on_train_start(self) -> None:
        torch.set_num_threads(1)
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.epoch_start = time.process_time()

    def on_train_epoch_end(self, train_outputs: list) -> None:
        super().on_train_epoch_end(train_outputs)
        is_first = self.current_epoch == 0
        before = [] if is_first else json.loads(self.seconds_file.read_text())
        seconds = [*before[: self.current_epoch], time.process_time() - self.epoch_start]
        self.seconds_file.write_text(json.dumps(seconds))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """The scored subjects are predicted later, and it has not seen them."""

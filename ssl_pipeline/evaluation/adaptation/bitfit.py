"""BitFit: only the biases are trained (Ben Zaken et al. 2022, arXiv:2106.10199)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from ssl_pipeline.evaluation.adaptation.adaptation import ParameterEfficient

if TYPE_CHECKING:
    from ssl_pipeline.models.encoder import Encoder

BIASES = ("bias", "shift")  # `shift` is what the convolutional backbone's norms call theirs


class BitFit(ParameterEfficient):
    """Training of every bias, of norms too."""

    TITLE: ClassVar[str] = "BitFit"

    name: Literal["bitfit"] = "bitfit"

    def adapt(self, encoder: "Encoder") -> None:
        """Unfreeze the biases."""
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(name.rpartition(".")[2] in BIASES)

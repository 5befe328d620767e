"""Objectives: the terms of one image in, the loss that is minimised out. Each class is one paper."""

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from keras_vae.errors import InputError
from keras_vae.parts import Part, part
from keras_vae.types import Tensor


class Terms(NamedTuple):
    """What every objective is made of, in nats per image: summed over the image, not yet averaged over images.

    Args:
        reconstruction_loss: The distortion −log p(x|z), (N,).
        kl_loss: The rate KL(q(z|x) ‖ p(z)), (N,).
    """

    reconstruction_loss: Tensor
    kl_loss: Tensor

    @property
    def negative_elbo(self) -> Tensor:
        """Distortion + rate, the bound on −log p(x) by which models are compared, (N,)."""
        return self.reconstruction_loss + self.kl_loss


class Objective(Part, abc.ABC):
    """What an objective can do."""

    kind: ClassVar[str] = "objective"

    @abc.abstractmethod
    def __call__(self, terms: Terms) -> Tensor:
        """Return what is minimised, in nats per image, (N,)."""


@part("elbo")
@dataclass(frozen=True)
class ELBO(Objective):
    r"""The negative evidence lower bound, \(-\log p(x|z) + \beta \, KL(q(z|x) \| p(z))\).

    β = 1 is the bound itself (Kingma and Welling, arXiv 1312.6114); other weights are the β-VAE's (Higgins et al.,
    ICLR 2017). A KL averaged over D latent dimensions, as many tutorials have it, is β = 1/D.

    Args:
        beta: The weight β ≥ 0 of the rate. It never depends on the size of the image.

    Raises:
        InputError: β is negative or not finite.

    Example:
        >>> ELBO(beta=4.0)(Terms(reconstruction_loss=100.0, kl_loss=5.0))
        120.0
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse weights that no bound has."""
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise InputError(f"beta = {self.beta}: the weight of the KL must be a finite number ≥ 0")

    def __call__(self, terms: Terms) -> Tensor:
        """Return distortion + β·rate in nats per image, (N,)."""
        return terms.reconstruction_loss + self.beta * terms.kl_loss

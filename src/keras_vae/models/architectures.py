"""Architectures: what an experiment file calls a model, and how it is put together for images of a shape."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from keras_vae.components.conditions import Condition
from keras_vae.components.likelihoods import Likelihood
from keras_vae.components.objectives import Objective
from keras_vae.components.vector_quantizer import AutoregressivePrior, VectorQuantizerEMA
from keras_vae.core.registry import Component, register
from keras_vae.core.typing import ImageShape
from keras_vae.models.base import BaseVAE
from keras_vae.models.hierarchical import HierarchicalVAE
from keras_vae.models.vae import VAE
from keras_vae.models.vq import VQVAE


class Components(NamedTuple):
    """What every architecture is put together from.

    Args:
        likelihood: p(x|z).
        objective: What is minimized.
        condition: What the model is told besides the pixels, or None.
        components: The parts that only some architectures take, by kind.
    """

    likelihood: Likelihood
    objective: Objective
    condition: Condition | None
    components: Mapping[str, Any]

    @property
    def width(self) -> int:
        """The size of the condition's vector; 0 without one."""
        return 0 if self.condition is None else self.condition.dim


class Architecture(Component, abc.ABC):
    """What an architecture can do."""

    kind: ClassVar[str] = "architecture"
    default_components: ClassVar[Mapping[str, Any]]
    """The parts that it lets be components, by kind, each with its default."""

    @abc.abstractmethod
    def __call__(self, image_shape: ImageShape, parts: Components, seed: int | None) -> BaseVAE:
        """Return the model for images (H, W, C), untrained and not compiled."""


@register("vae")
@dataclass(frozen=True)
class VAEArchitecture(Architecture):
    """`VAE`: one vector of codes an image (Kingma and Welling, arXiv 1312.6114)."""

    default_components: ClassVar[Mapping[str, Any]] = {
        "latent_dim": 2,
        "network": {"name": "conv"},
        "prior": {"name": "standard-normal"},
        "posterior": {"name": "normal"},
    }

    def __call__(self, image_shape: ImageShape, parts: Components, seed: int | None) -> VAE:
        """Return the model for images (H, W, C), untrained and not compiled."""
        height, width, channels = image_shape
        latent_dim, network = parts.components["latent_dim"], parts.components["network"]
        prior, posterior = parts.components["prior"], parts.components["posterior"]
        # Said of the parts, before networks are built for images that no part describes.
        parts.likelihood.check_images(image_shape)
        return VAE(
            network.encoder((height, width, channels + parts.width), latent_dim, posterior.param_sizes(latent_dim)),
            network.decoder(latent_dim + parts.width, (height, width, parts.likelihood.decoder_channels(channels))),
            prior=prior,
            likelihood=parts.likelihood,
            posterior=posterior,
            objective=parts.objective,
            condition=parts.condition,
            seed=seed,
        )


@register("ladder")
@dataclass(frozen=True)
class LadderArchitecture(Architecture):
    """`HierarchicalVAE`: groups of latent maps, from coarse to fine (Vahdat and Kautz, arXiv 2007.03898).

    Args:
        widths: Channels after each halving of the image, first to last.
        groups: How many groups there are at each of these sizes.
        latent_channels: Channels of a group's map.
        blocks: Residual blocks at each size, and after each group.
    """

    default_components: ClassVar[Mapping[str, Any]] = {}

    widths: tuple[int, ...] = (32, 64, 96)
    groups: tuple[int, ...] = (1, 1, 1)
    latent_channels: int = 8
    blocks: int = 1

    def __call__(self, image_shape: ImageShape, parts: Components, seed: int | None) -> HierarchicalVAE:
        """Return the model for images (H, W, C), untrained and not compiled."""
        return HierarchicalVAE(
            image_shape,
            widths=self.widths,
            groups=self.groups,
            latent_channels=self.latent_channels,
            blocks=self.blocks,
            likelihood=parts.likelihood,
            objective=parts.objective,
            condition=parts.condition,
            seed=seed,
        )


@register("vq")
@dataclass(frozen=True)
class VQVAEArchitecture(Architecture):
    """`VQVAE`: codes by number on a map, under an autoregressive prior (van den Oord et al., arXiv 1711.00937).

    Args:
        num_codes: Number of codes.
        code_dim: The length of each.
        commitment: Weight of the squared distance of the encoder's outputs from their codes.
        decay: By how much a code keeps to where it was, a step.
        prior_width: Of the vectors in the prior over maps of codes.
        prior_blocks: Blocks of attention in it.
    """

    default_components: ClassVar[Mapping[str, Any]] = {"network": {"name": "conv"}}

    num_codes: int = 128
    code_dim: int = 32
    commitment: float = 0.25
    decay: float = 0.99
    prior_width: int = 64
    prior_blocks: int = 3

    def __call__(self, image_shape: ImageShape, parts: Components, seed: int | None) -> VQVAE:
        """Return the model for images (H, W, C), untrained and not compiled."""
        return VQVAE.from_network(
            parts.components["network"],
            image_shape,
            code_dim=self.code_dim,
            codebook=VectorQuantizerEMA(self.num_codes, self.decay, self.commitment),
            prior=AutoregressivePrior(self.prior_width, self.prior_blocks),
            likelihood=parts.likelihood,
            objective=parts.objective,
            condition=parts.condition,
            seed=seed,
        )

"""Architectures: the settings of a model in an experiment file, and the functions that build the model from them."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, cast

from keras_vae.components.autoregressive_prior import AutoregressivePrior
from keras_vae.components.conditions import Condition
from keras_vae.components.image_losses import ImageLoss
from keras_vae.components.likelihoods import Likelihood
from keras_vae.components.objectives import Objective
from keras_vae.components.quantizers.gradients import Gradient
from keras_vae.core import registry
from keras_vae.core.registry import Component, register
from keras_vae.core.typing import ImageShape
from keras_vae.models.base import BaseVAE
from keras_vae.models.hierarchical import HierarchicalVAE
from keras_vae.models.missing import encoder_channels
from keras_vae.models.vae import VAE
from keras_vae.models.vq import VQVAE


class Components(NamedTuple):
    """Components from which an architecture builds a model.

    Args:
        likelihood: p(x|z).
        objective: Loss function of the terms.
        condition: Condition of the model, or None.
        mask_channels: Whether the encoder also receives the mask of observed pixels.
        specific: Components and settings of this architecture alone, by kind; see `Architecture.default_components`.
        image_losses: Losses of the reconstruction to add to the objective.
    """

    likelihood: Likelihood
    objective: Objective
    condition: Condition | None
    mask_channels: bool
    specific: Mapping[str, Any]
    image_losses: Sequence[ImageLoss] = ()

    @property
    def condition_dim(self) -> int:
        """Size of the condition's vector; 0 without a condition."""
        return 0 if self.condition is None else self.condition.dim

    def encoder_channels(self, image_channels: int) -> int:
        """Return the number of channels of the encoder's inputs."""
        return encoder_channels(image_channels, self.condition_dim, self.mask_channels)


class Architecture(Component, abc.ABC):
    """Base class of architectures: the settings of a model, callable to build it."""

    kind: ClassVar[str] = "architecture"
    default_components: ClassVar[Mapping[str, Any]]
    """Defaults of the architecture's additional components, by kind; `Components` lists those of every model."""

    @abc.abstractmethod
    def __call__(self, image_shape: ImageShape, components: Components, seed: int | None) -> BaseVAE:
        """Build a model for images (H, W, C), neither trained nor compiled."""


@register("vae")
@dataclass(frozen=True)
class VAEArchitecture(Architecture):
    """`VAE`: one latent vector or map per image (Kingma and Welling, arXiv 1312.6114)."""

    default_components: ClassVar[Mapping[str, Any]] = {
        "latent_dim": 2,
        "network": {"name": "conv"},
        "prior": {"name": "standard-normal"},
        "posterior": {"name": "normal"},
    }

    def __call__(self, image_shape: ImageShape, components: Components, seed: int | None) -> VAE:
        """Build a model for images (H, W, C), neither trained nor compiled."""
        height, width, channels = image_shape
        likelihood, condition_dim = components.likelihood, components.condition_dim
        latent_dim, posterior = components.specific["latent_dim"], components.specific["posterior"]
        network = components.specific["network"]
        # Before the networks are built, so that the error is about the likelihood.
        likelihood.check_images(image_shape)
        model = VAE(
            network.encoder(
                (height, width, components.encoder_channels(channels)), latent_dim, posterior.param_sizes(latent_dim)
            ),
            network.decoder(latent_dim, (height, width, likelihood.decoder_channels(channels)), condition_dim),
            prior=components.specific["prior"],
            likelihood=likelihood,
            posterior=posterior,
            objective=components.objective,
            condition=components.condition,
            mask_channels=components.mask_channels,
            image_losses=components.image_losses,
            seed=seed,
        )
        if not model.built:
            model.build((None, *image_shape))
        return model


@register("ladder")
@dataclass(frozen=True)
class LadderArchitecture(Architecture):
    """`HierarchicalVAE`: groups of latent maps, coarse to fine (Vahdat and Kautz, arXiv 2007.03898).

    Args:
        widths: Channels after each halving of the image, first to last.
        groups: Number of groups at each of these sizes.
        latent_channels: Channels of each group's latent map.
        blocks: Residual blocks per size of the bottom-up network, and per group of the top-down one.
    """

    default_components: ClassVar[Mapping[str, Any]] = {}

    widths: tuple[int, ...] = (32, 64, 96)
    groups: tuple[int, ...] = (1, 1, 1)
    latent_channels: int = 8
    blocks: int = 1

    def __call__(self, image_shape: ImageShape, components: Components, seed: int | None) -> HierarchicalVAE:
        """Build a model for images (H, W, C), neither trained nor compiled."""
        return HierarchicalVAE(
            image_shape,
            widths=self.widths,
            groups=self.groups,
            latent_channels=self.latent_channels,
            blocks=self.blocks,
            likelihood=components.likelihood,
            objective=components.objective,
            condition=components.condition,
            mask_channels=components.mask_channels,
            image_losses=components.image_losses,
            seed=seed,
        )


@register("vq")
@dataclass(frozen=True)
class VQVAEArchitecture(Architecture):
    """`VQVAE`: maps of code indices, with an autoregressive prior (van den Oord et al., arXiv 1711.00937).

    Args:
        quantizer: Short name of the quantizer, or its table; by default, `ema` with 128 codes.
        code_dim: Size of the code vectors; None for 32, or for the number of levels of `fsq`.
        gradient: Gradient estimator of the quantizer; see `quantizers.pass_gradient`.
        prior_width: Size of the hidden vectors of the prior.
        prior_blocks: Number of transformer blocks of the prior.
    """

    default_components: ClassVar[Mapping[str, Any]] = {"network": {"name": "conv"}}

    quantizer: str | Mapping[str, Any] = field(default_factory=lambda: {"name": "ema", "num_codes": 128})
    code_dim: int | None = None
    gradient: Gradient = "straight-through"
    prior_width: int = 64
    prior_blocks: int = 3

    def __post_init__(self) -> None:
        """Write out the defaults of the quantizer, and check the settings that depend on it."""
        table = {"name": self.quantizer} if isinstance(self.quantizer, str) else self.quantizer
        quantizer = registry.build("quantizer", table)
        quantizer.check_gradient(self.gradient)
        object.__setattr__(self, "quantizer", registry.spec("quantizer", quantizer))
        object.__setattr__(self, "code_dim", quantizer.check_code_dim(self.code_dim, default=32))

    def __call__(self, image_shape: ImageShape, components: Components, seed: int | None) -> VQVAE:
        """Build a model for images (H, W, C), neither trained nor compiled."""
        return VQVAE.from_network(
            components.specific["network"],
            image_shape,
            code_dim=self.code_dim,
            quantizer=registry.build("quantizer", cast("Mapping[str, Any]", self.quantizer)),
            gradient=self.gradient,
            prior=AutoregressivePrior(self.prior_width, self.prior_blocks),
            likelihood=components.likelihood,
            objective=components.objective,
            condition=components.condition,
            mask_channels=components.mask_channels,
            image_losses=components.image_losses,
            seed=seed,
        )

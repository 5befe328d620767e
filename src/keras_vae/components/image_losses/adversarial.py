"""The adversarial loss: a discriminator of patches that is trained together with the model."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from keras import ops

from keras_vae.components.image_losses.base import ImageLoss, ImageLossTerms
from keras_vae.components.schedules import is_fraction
from keras_vae.core.convolution import convolve, num_groups
from keras_vae.core.errors import InputError, check_count, require_list, shown
from keras_vae.core.registry import register
from keras_vae.core.typing import ImageShape, Tensor

_KERNEL = 4
_SLOPE = 0.2
_EPSILON = 1e-5


@register("adversarial")
class Adversarial(ImageLoss):
    r"""A discriminator D of patches with hinge loss (Isola et al., arXiv 1611.07004; Esser et al., arXiv 2012.09841).

    D maps an image to a map of numbers, one per patch. It minimizes
    \(\operatorname{mean}\max(0, 1 - D(x)) + \operatorname{mean}\max(0, 1 + D(\hat x))\) for images x and
    reconstructions \(\hat x\), which are constants here. The model minimizes \(-\operatorname{mean} D(\hat x)\), in
    which the weights of D are constants. One optimizer makes both steps at once.

    D consists of convolutions with stride 2, leaky ReLU and group normalization. Batch normalization would mix images
    and reconstructions.

    With `adaptive`, the gradient of the model is \(g_r + \text{weight} \cdot \lambda g_a\),
    \(\lambda = \|g_r\| / (\|g_a\| + 10^{-4}) \le 10^4\), for the gradients \(g_r\) of all other losses of the
    reconstruction and \(g_a\) of the adversarial loss. Esser et al. measure both gradients in the weights of the
    decoder's last layer, which requires two more backward passes. Here they are measured in the outputs of the decoder,
    within the one backward pass; λ is therefore not known in the forward pass, and `total_loss` contains
    \(-\text{weight} \cdot \operatorname{mean} D(\hat x)\) without it.

    Both losses are zero before `start`, and in validation, because a number relative to a changing discriminator is not
    comparable across epochs. Training reports `generator_loss`, \(-\operatorname{mean} D(\hat x)\);
    `discriminator_loss`, which is 2 if D is always 0; the mean outputs `discriminator_real` and `discriminator_fake`;
    and `discriminator_accuracy`, the share of patches with the correct sign.

    Args:
        weight: Weight of the loss; with `adaptive`, relative to the gradient of all other losses.
        start: First step of both losses. In an experiment, a float ≤ 1 is a fraction of all training steps.
        widths: Channels of the discriminator after each halving of the image.
        adaptive: Whether to scale the gradient adaptively.
        **kwargs: Generic arguments of Keras layers.

    Raises:
        InputError: A setting is out of its range.

    Example:
        >>> loss = Adversarial(start=0, widths=(8, 16))
        >>> loss.build((16, 16, 3))
        >>> images = ops.zeros((2, 16, 16, 3))
        >>> tuple(loss(images, images, step=0, training=True).loss.shape)
        (2,)
    """

    metric_names: ClassVar[tuple[str, ...]] = (
        "generator_loss",
        *("discriminator_loss", "discriminator_real", "discriminator_fake", "discriminator_accuracy"),
    )

    def __init__(
        self,
        weight: float = 0.5,
        start: int | float = 0.3,
        widths: Sequence[int] = (32, 64, 128),
        adaptive: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(weight, **kwargs)
        if not (math.isfinite(start) and start >= 0):
            raise InputError(f"start = {start}: not a valid step; pass a finite number ≥ 0")
        require_list("widths", widths)
        for width in widths:
            check_count("widths", width)
        if not widths:
            raise InputError("widths = []: the discriminator has no layer; pass at least one width, such as [32, 64]")
        self.start, self.widths, self.adaptive = start, tuple(widths), adaptive

    @property
    def is_adaptive(self) -> bool:
        """Whether the gradient is scaled adaptively."""
        return self.adaptive

    def build(self, image_shape: ImageShape) -> None:
        """Create the weights of the discriminator.

        Args:
            image_shape: (H, W, C) of the images; None for a height or width that is not fixed.

        Raises:
            InputError: The last map of the discriminator would have one pixel, or `start` is a fraction.
        """
        *sides, channels = image_shape
        smallest = 2 ** (len(self.widths) + 1)
        if any(side is not None and side < smallest for side in sides):
            raise InputError(
                f"image_shape = {tuple(image_shape)}: too small for a discriminator that halves images "
                f"{len(self.widths)} times, whose maps need at least 2×2 patches; use images of at least "
                f"{smallest}×{smallest}, or fewer widths than {shown([*self.widths])}"
            )
        if is_fraction(self.start):
            raise InputError(
                f"start = {self.start}: a fraction of all training steps, but their number is unknown outside of an "
                "experiment; pass an integer"
            )
        sizes = (channels, *self.widths)
        self.kernels = [
            self.add_weight(shape=(_KERNEL, _KERNEL, *pair), initializer="glorot_uniform", name=f"kernel_{layer}")
            for layer, pair in enumerate(itertools.pairwise(sizes))
        ]
        self.biases = [
            self.add_weight(shape=(width,), initializer="zeros", name=f"bias_{layer}")
            for layer, width in enumerate(self.widths)
        ]
        self.scales = [
            self.add_weight(shape=(width,), initializer="ones", name=f"scale_{layer}")
            for layer, width in enumerate(self.widths[1:], 1)
        ]
        last = (_KERNEL, _KERNEL, self.widths[-1], 1)
        self.head = self.add_weight(shape=last, initializer="glorot_uniform", name="head")

    def discriminate(self, images: Tensor, detach_weights: bool = False) -> Tensor:
        """Return the outputs of the discriminator for images (N, H, W, C) in [0, 1], a map (N, rows, columns).

        Args:
            images: The images.
            detach_weights: Whether gradients treat the weights as constants.
        """
        as_tensor = ops.stop_gradient if detach_weights else ops.convert_to_tensor
        features = 2.0 * images - 1.0
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            features = convolve(features, as_tensor(kernel), (2, 2))
            # As usual, the first layer is not normalized: it would lose the brightness of the patches.
            if layer:
                features = _normalize(features) * as_tensor(self.scales[layer - 1])
            features = ops.leaky_relu(features + as_tensor(bias), negative_slope=_SLOPE)
        # Without a bias, whose gradients for images and reconstructions cancel within the margins of the hinge loss.
        return convolve(features, as_tensor(self.head), (1, 1))[..., 0]

    def call(self, images: Tensor, reconstruction: Tensor, step: Tensor, training: bool = False) -> ImageLossTerms:
        """Return the sum of the generator's and the discriminator's losses of a batch; see `ImageLoss.call`."""
        generated = self.discriminate(reconstruction, detach_weights=True)
        real = self.discriminate(ops.stop_gradient(images))
        fake = self.discriminate(ops.stop_gradient(reconstruction))
        generator_loss = -_mean(generated)
        discriminator_loss = _mean(ops.relu(1.0 - real)) + _mean(ops.relu(1.0 + fake))
        correct = (_mean(ops.cast(outputs, "float32")) for outputs in (real > 0, fake < 0))
        values = (generator_loss, discriminator_loss, _mean(real), _mean(fake), 0.5 * sum(correct))
        loss = ops.zeros_like(generator_loss)
        if training:
            has_started = ops.cast(ops.cast(step, "float32") >= float(self.start), "float32")
            loss = has_started * (self.weight * generator_loss + discriminator_loss)
        return ImageLossTerms(loss, dict(zip(self.metric_names, values, strict=True)))


def _mean(outputs: Tensor) -> Tensor:
    """Return the mean over the patches (N, rows, columns) of each image, (N,)."""
    return ops.mean(outputs, axis=(1, 2))


def _normalize(features: Tensor) -> Tensor:
    """Standardize maps (N, H, W, F) per image, in groups of channels (Wu and He, arXiv 1803.08494)."""
    *_, channels = features.shape
    shape, groups = ops.shape(features), num_groups(channels, groups=8)
    grouped = ops.reshape(features, (-1, shape[1] * shape[2], groups, channels // groups))
    mean, variance = ops.moments(grouped, axes=(1, 3), keepdims=True)
    return ops.reshape((grouped - mean) * ops.rsqrt(variance + _EPSILON), (-1, shape[1], shape[2], channels))

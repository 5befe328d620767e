"""The perceptual loss: distances between images in the layers of a fixed network."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from keras_vae.components.image_losses import feature_networks as networks
from keras_vae.components.image_losses.base import ImageLoss, ImageLossTerms
from keras_vae.core.errors import InputError, check_count, require_list
from keras_vae.core.registry import register
from keras_vae.core.typing import ImageShape, Tensor


class _Untracked:
    """Hides the network from Keras, which would otherwise save its weights with those of the model."""

    network: keras.Model | None = None


@register("perceptual")
class Perceptual(ImageLoss):
    r"""The distance between images and reconstructions in several layers of a fixed network.

    \(\text{weight} \cdot H W C \cdot d(x, \hat x)\), with
    \(d = \sum_l \operatorname{mean}_{p} \|\hat f_{lp}(x) - \hat f_{lp}(\hat x)\|^2\) over the positions p of layer l,
    whose vectors of features are normalized to length 1. This is LPIPS (Zhang et al., arXiv 1801.03924) without its
    learned weights of channels, which Keras does not provide: values are not comparable with published LPIPS. The
    factor H·W·C keeps the balance with the likelihood, a sum over pixels and channels, at any image size, as in Esser
    et al. (arXiv 2012.09841).

    The network is not a part of the model: its weights are neither trained nor averaged nor saved, in checkpoints,
    models and exports. Files of models name it, and it is loaded again when a training or an evaluation of the loss
    starts; inference needs no network. A file of features must therefore remain in its place to resume a training.

    Args:
        weight: Weight of the loss.
        features: `"imagenet"`: `network` with the weights that Keras downloads; `"random"`: four convolutions with
            random weights; the path of a `.weights.h5` or `.h5` file with weights of `network`, without its top; or the
            path of a `.keras` file with any model from images in [0, 1] to one or more maps (N, h, w, F), such as
            `evaluation.classifier_file.save_classifier` writes.
        network: Name of a network of `keras.applications`.
        layer_names: Its layers to compare. By default the last convolution of each block of VGG16 and VGG19.
        upsample: Factor by which each pixel is repeated in both directions, for images that are too small for the
            network: those of `keras.applications` need 32×32 pixels.
        seed: Seed of the random weights.
        **kwargs: Generic arguments of Keras layers.

    Raises:
        InputError: A setting is invalid.

    Example:
        >>> loss = Perceptual(features="random")
        >>> loss.build((16, 16, 3))
        >>> images = ops.zeros((2, 16, 16, 3))
        >>> float(ops.max(loss(images, images, step=0).loss))
        0.0
    """

    metric_names: ClassVar[tuple[str, ...]] = ("perceptual_distance",)

    def __init__(
        self,
        weight: float = 1.0,
        features: str = networks.IMAGENET,
        network: str = "VGG16",
        layer_names: Sequence[str] = (),
        upsample: int = 1,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(weight, **kwargs)
        require_list("layer_names", layer_names)
        check_count("upsample", upsample)
        networks.check_feature_settings(features, network, layer_names)
        self.features, self.network, self.layer_names = features, network, tuple(layer_names)
        self.upsample, self.seed = upsample, seed
        self._untracked = _Untracked()

    def build(self, image_shape: ImageShape) -> None:
        """Check the size of the images; the network is loaded by `prepare`.

        Args:
            image_shape: (H, W, C) of the images; None for a height or width that is not fixed.

        Raises:
            InputError: The images are too small for the network.
        """
        height, width, _ = image_shape
        smallest = min(side for side in (height, width, math.inf) if side is not None)
        if networks.is_application(self.features) and smallest * self.upsample < networks.MIN_SIDE:
            factor = math.ceil(networks.MIN_SIDE / smallest)
            raise InputError(
                f"upsample = {self.upsample}: images of {height}×{width} are smaller than {networks.MIN_SIDE}×"
                f"{networks.MIN_SIDE}, which {self.network} needs; set upsample = {factor}, or features = random"
            )

    def prepare(self) -> None:
        """Load the network.

        Raises:
            InputError: There is no such file or layer.
            RunError: Keras cannot load the weights of ImageNet.
        """
        if self._untracked.network is None:
            self._untracked.network = networks.load_feature_network(
                self.features, network=self.network, layer_names=self.layer_names, seed=self.seed
            )

    def call(self, images: Tensor, reconstruction: Tensor, step: Tensor, training: bool = False) -> ImageLossTerms:
        """Return the loss of a batch; see `ImageLoss.call`."""
        self.prepare()
        network, (_, *shape) = self._untracked.network, ops.shape(images)
        first, second = (networks.feature_maps(network, batch, self.upsample) for batch in (images, reconstruction))
        distance = networks.perceptual_distance([ops.stop_gradient(maps) for maps in first], second)
        pixels = ops.cast(math.prod(shape), "float32")
        return ImageLossTerms(self.weight * pixels * distance, {"perceptual_distance": distance})

"""The equivariance loss: rotated and smaller latent maps must decode to rotated and smaller images."""

from collections.abc import Sequence
from typing import Any, ClassVar

from keras import ops

from keras_vae.components.image_losses.base import Decoding, ImageLoss, ImageLossTerms
from keras_vae.core.errors import InputError, check_count, require_list, shown
from keras_vae.core.registry import register
from keras_vae.core.typing import ImageShape, Shape, Tensor


@register("equivariance")
class Equivariance(ImageLoss):
    r"""Reconstruction loss of transformed images, decoded from transformed latent maps (EQ-VAE, arXiv 2502.09509).

    \(-\log p(\tau x | \tau z)\) for samples z of the posterior. The transformation \(\tau\) averages squares of
    `factor` × `factor` pixels of the image and positions of the map, and rotates both by a random number of quarter
    turns, drawn per image. The loss is multiplied by `factor`², so that it is in nats of the whole image, and averaged
    over the factors. Latent maps that follow transformations of the image are smoother, and easier to model by a prior.

    Kouzelis et al. replace the reconstruction loss by this one in a random half of the steps, choose any factor in [1,
    4], and interpolate. Here both losses are minimized in every step, so that `reconstruction_loss` and `negative_elbo`
    remain those of the images themselves, and shapes are static. With `weight = 1`, the sum is twice the expectation of
    theirs, with half the weight of the KL. Their adversarial and perceptual losses also compare transformed images.

    Each factor costs a pass of the decoder over images with 1/`factor`² of the pixels. In validation, all images are
    rotated by one quarter turn, so that epochs are comparable.

    Args:
        weight: Weight of the loss.
        factors: Factors by which height and width are reduced. A factor above 1 requires networks for images of any
            size, and that it divides the latent map.
        rotate: Whether to rotate images and maps, which must be square.
        **kwargs: Generic arguments of Keras layers.

    Raises:
        InputError: A setting is invalid, or there is no transformation.

    Example:
        >>> from keras_vae.networks import Autoencoder
        >>> from keras_vae import VAE
        >>> network = Autoencoder(widths=(8, 8), groups=4, attention=False)
        >>> networks = network.encoder((16, 16, 3)), network.decoder(None, (16, 16, 6))
        >>> vae = VAE(*networks, image_shape=(16, 16, 3), image_losses=[Equivariance(factors=[1, 2])], seed=0)
    """

    metric_names: ClassVar[tuple[str, ...]] = ("equivariance_loss",)
    requires_map: ClassVar[bool] = True

    def __init__(self, weight: float = 1.0, factors: Sequence[int] = (2,), rotate: bool = True, **kwargs: Any) -> None:
        super().__init__(weight, **kwargs)
        require_list("factors", factors)
        for factor in factors:
            check_count("factors", factor)
        if not factors or (set(factors) == {1} and not rotate):
            raise InputError(f"factors = {shown([*factors])}: no transformation of the images; pass for example [1, 2]")
        self.factors, self.rotate = tuple(factors), rotate

    def build(self, image_shape: ImageShape) -> None:
        """Check the size of the images; there are no weights."""
        self._check_size("image_shape", image_shape)

    def check_map(self, map_shape: Shape, has_any_size: bool) -> None:
        """Reject latent maps for which a transformation is not defined; see `ImageLoss.check_map`."""
        self._check_size("latent_shape", map_shape)
        if max(self.factors) > 1 and not has_any_size:
            raise InputError(
                f"factors = {shown([*self.factors])}: the networks accept only one size; pass [1], or networks with "
                "inputs (None, None, C)"
            )

    def _check_size(self, name: str, shape: Shape) -> None:
        height, width = shape[-3:-1]
        if None in (height, width):
            return
        if self.rotate and height != width:
            raise InputError(
                f"{name} = {tuple(shape)}: the equivariance loss rotates squares only; pass rotate = false"
            )
        for factor in self.factors:
            if height % factor or width % factor:
                raise InputError(
                    f"factors = {shown([*self.factors])}: {factor} does not divide {name} = {tuple(shape)}; pass other "
                    "factors, or images of another size"
                )

    def call(
        self,
        images: Tensor,
        reconstruction: Tensor,
        step: Tensor,
        training: bool = False,
        decoding: Decoding | None = None,
    ) -> ImageLossTerms:
        """Return the loss of a batch; see `ImageLoss.call`."""
        assert decoding is not None
        codes = decoding.codes
        if self.rotate:
            self._check_size("image_shape", images.shape[1:])
            number = ops.shape(images)[0]
            turns = ops.floor(4.0 * decoding.uniform((number,))) if training else ops.ones((number,))
            images, codes = (rotate(maps, turns) for maps in (images, codes))
        losses = [
            -(factor**2) * decoding.log_likelihood(_downscale(codes, factor), _downscale(images, factor))
            for factor in self.factors
        ]
        loss = sum(losses) / len(losses)
        return ImageLossTerms(self.weight * loss, {"equivariance_loss": loss})


def rotate(maps: Tensor, turns: Tensor) -> Tensor:
    """Rotate square maps counterclockwise.

    Args:
        maps: (N, size, size, C).
        turns: Quarter turns of each map, 0 to 3, (N,), floats.
    """
    turns = turns[:, None, None, None]
    quarter = ops.flip(ops.transpose(maps, (0, 2, 1, 3)), axis=1)
    maps = ops.where(turns % 2 == 1, quarter, maps)
    return ops.where(turns >= 2, ops.flip(maps, axis=(1, 2)), maps)


def _downscale(maps: Tensor, factor: int) -> Tensor:
    return maps if factor == 1 else ops.average_pool(maps, factor, factor, data_format="channels_last")

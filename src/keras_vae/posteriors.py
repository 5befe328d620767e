"""Posteriors q(z|x): from what the encoder says to a draw of z."""

from typing import Any

import keras
from keras import ops

from keras_vae.distributions import Normal
from keras_vae.parts import PACKAGE
from keras_vae.types import Tensor


@keras.saving.register_keras_serializable(PACKAGE)
class Sampler(keras.layers.Layer):
    r"""Draws \(z = \mu + e^{\frac12 \log\sigma^2} \varepsilon\), \(\varepsilon \sim N(0, I)\), differentiably.

    The reparameterisation trick of Kingma and Welling (arXiv 1312.6114). The layer owns the noise: its generator's
    state is saved with the model, so that a loaded model goes on with the draws that the saved one would have made.

    Args:
        seed: Where the noise starts; None takes a random start.
        **kwargs: As for every Keras layer.

    Call arguments:
        moments: `z_mean` and `z_log_var`, each (N, latent_dim).

    Example:
        >>> z = Sampler(seed=0)([keras.ops.zeros((8, 2)), keras.ops.zeros((8, 2))])
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, moments: tuple[Tensor, Tensor]) -> Tensor:  # noqa: D102
        z_mean, z_log_var = moments
        noise = keras.random.normal(ops.shape(z_mean), dtype=z_mean.dtype, seed=self.seed_generator)
        return Normal(z_mean, z_log_var).sample(noise)

    def compute_output_shape(self, input_shape: tuple[Any, Any]) -> Any:  # noqa: ANN401, D102
        return input_shape[0]

    # Keras saves weights and forgets the state of generators.
    def save_own_variables(self, store: dict[str, Any]) -> None:  # noqa: D102
        store["seed_generator_state"] = keras.ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store: dict[str, Any]) -> None:  # noqa: D102
        self.seed_generator.state.assign(store["seed_generator_state"])

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {**super().get_config(), "seed": self.seed}

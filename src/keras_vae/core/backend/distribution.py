"""Training on several devices."""

import keras

from keras_vae.core.backend.hardware import name
from keras_vae.core.errors import InputError


def check_replicas() -> None:
    """Reject strategies that this package or the backend does not support: only JAX trains on several devices.

    Raises:
        InputError: The current `tf.distribute` strategy has several replicas, whose gradients would be added instead of
            averaged; or `keras.distribution` is set, which the backend ignores.
    """
    if name() == "tensorflow":
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
        if strategy.num_replicas_in_sync > 1:
            raise InputError(
                f"strategy = {type(strategy).__name__}: a VAE trains on one replica, not on "
                f"{strategy.num_replicas_in_sync}; leave the scope of the strategy, or use keras.distribution with "
                "KERAS_BACKEND=jax"
            )
    distribution = keras.distribution.distribution()
    if distribution is not None and name() != "jax":
        raise InputError(
            f"distribution = {type(distribution).__name__}: ignored by Keras on {name()}; use KERAS_BACKEND=jax, or "
            "call keras.distribution.set_distribution(None)"
        )

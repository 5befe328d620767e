"""The classic variational autoencoder in one file of plain TensorFlow and Keras, to read from top to bottom.

The model assumes that each image x is generated from a hidden code z: z is drawn from the prior p(z) = N(0, I), then
each pixel from a Bernoulli distribution p(x|z) whose mean is the output of the decoder. The encoder learns the reverse,
q(z|x). Both are trained together to minimize the negative evidence lower bound (negative ELBO), in nats per image:

    -log p(x)  ≤  E_q[-log p(x|z)]  +  KL(q(z|x) ‖ p(z))
                  reconstruction       KL

    python examples/from_scratch.py                      # scikit-learn's small digits, nothing to download
    python examples/from_scratch.py --data mnist         # MNIST through Keras, or --data path/to/mnist.npz

The paper is Kingma and Welling, "Auto-Encoding Variational Bayes", arXiv 1312.6114. The program follows the tutorial in
F. Chollet, "Deep Learning with Python", second edition, chapter 12 (notebook
chapter12_part04_variational-autoencoders in the repository fchollet/deep-learning-with-python-notebooks). On MNIST,
layers, optimizer, epochs, batch size and grid are the same. In contrast, the tutorial gives the KL a weight of one half
(see `VAE`), trains on training and test images together, and runs eagerly.
"""

import argparse
import os
from pathlib import Path

# Keras chooses its backend on import, so this line must come first.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from matplotlib.figure import Figure


# --- 1. The encoder: from x to the mean and log-variance of q(z|x) ---------------------------------------------------
def build_encoder(latent_dim: int = 2) -> keras.Model:
    """Map 28×28×1 images in [0, 1] to `[z_mean, z_log_var]`, where q(z|x) = N(z_mean, exp(z_log_var))."""
    images = keras.Input((28, 28, 1))
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(images)
    x = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(16, activation="relu")(x)
    z_mean = layers.Dense(latent_dim, name="z_mean")(x)
    # The logarithm can be any real number, so the variance is positive without a constraint on the layer.
    z_log_var = layers.Dense(latent_dim, name="z_log_var")(x)
    return keras.Model(images, [z_mean, z_log_var], name="encoder")


# --- 2. Sampling: z ~ q(z|x), differentiable in the parameters of q --------------------------------------------------
class Sampler(layers.Layer):
    """Reparameterization: z = z_mean + exp(½ z_log_var)·ε with ε ~ N(0, I).

    A random draw has no gradient. Given a separate draw of ε, z is a differentiable function of z_mean and z_log_var.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        # The generator's state is a variable, so the compiled graph draws new noise in every step.
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, z_mean: tf.Tensor, z_log_var: tf.Tensor) -> tf.Tensor:
        """Draw one z per image."""
        eps = keras.random.normal(ops.shape(z_mean), seed=self.seed_generator)
        return z_mean + ops.exp(0.5 * z_log_var) * eps


# --- 3. The decoder: from z to the pixel means of p(x|z) -------------------------------------------------------------
def build_decoder(latent_dim: int = 2) -> keras.Model:
    """Map codes to pixel means, 28×28×1 in [0, 1]. The layers mirror those of the encoder."""
    z = keras.Input((latent_dim,))
    x = layers.Dense(7 * 7 * 64, activation="relu")(z)
    x = layers.Reshape((7, 7, 64))(x)
    x = layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu")(x)
    # The mean of a Bernoulli variable is a probability, so a sigmoid keeps it in [0, 1].
    means = layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x)
    return keras.Model(z, means, name="decoder")


# --- 4. The model: its loss and its training step --------------------------------------------------------------------
class VAE(keras.Model):
    """An encoder and a decoder trained together to minimize reconstruction + β·KL.

    With β = 1, the loss is the negative ELBO. The tutorial (F. Chollet, "Deep Learning with Python", second edition,
    chapter 12) averages the KL over the latent dimensions, whereas the formula and the example on keras.io sum it. The
    average corresponds to β = 1/latent_dim, which is 0.5 for two dimensions.
    """

    def __init__(self, encoder: keras.Model, decoder: keras.Model, beta: float = 1.0, seed: int | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder, self.sampler = encoder, decoder, Sampler(seed)
        self.beta = beta
        self.trackers = [keras.metrics.Mean(name=name) for name in ("total_loss", "reconstruction_loss", "kl_loss")]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The three trackers. Keras resets them at the start of every epoch."""
        return self.trackers

    def compute_losses(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return the total, reconstruction and KL losses, summed over each image and averaged over the batch.

        reconstruction = -Σ_pixels [x log m + (1 - x) log(1 - m)], m = decoder(z); one draw of z estimates E_q
        KL             = -½ Σ_dims [1 + z_log_var - z_mean² - exp(z_log_var)]; exact for two normals
        """
        z_mean, z_log_var = self.encoder(images)
        means = self.decoder(self.sampler(z_mean, z_log_var))
        # Sums, not means: β = 1 is the bound only if both terms are in nats per image.
        reconstruction = ops.sum(ops.binary_crossentropy(images, means), axis=(1, 2, 3))
        kl = -0.5 * ops.sum(1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var), axis=1)
        return ops.mean(reconstruction + self.beta * kl), ops.mean(reconstruction), ops.mean(kl)

    def train_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Update the weights once, along the negative gradient of the total loss."""
        with tf.GradientTape() as tape:
            losses = self.compute_losses(images)
        gradients = tape.gradient(losses[0], self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        return self.track(losses, count=ops.shape(images)[0])

    def test_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Compute the same losses without changing the weights."""
        return self.track(self.compute_losses(images), count=ops.shape(images)[0])

    def track(self, losses: tuple[tf.Tensor, tf.Tensor, tf.Tensor], count: tf.Tensor) -> dict[str, tf.Tensor]:
        """Add a batch to the running means and return them by name."""
        for tracker, loss in zip(self.trackers, losses, strict=True):
            # The last batch of an epoch may be smaller. Weighting by size makes these means over images, not batches.
            tracker.update_state(loss, sample_weight=count)
        return {tracker.name: tracker.result() for tracker in self.trackers}


# --- 5. The data: images in [0, 1], shape (count, 28, 28, 1) ---------------------------------------------------------
def load_images(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the training and test images of `digits`, `mnist` or an mnist.npz file."""
    if source == "digits":
        from sklearn.datasets import load_digits

        # 1,797 images of 8×8 pixels. The border keeps strokes away from the edge of the image, as in MNIST. The cubic
        # 3t² - 2t³ sharpens the strokes that enlargement has blurred.
        small = np.pad(load_digits().images / 16, ((0, 0), (1, 1), (1, 1)))[..., np.newaxis]
        t = np.clip((tf.image.resize(small, (28, 28), method="bicubic").numpy() - 0.2) / 0.7, 0, 1)
        images = 3 * t**2 - 2 * t**3
        return images[:1500], images[1500:]
    if source == "mnist":
        (train, _), (test, _) = keras.datasets.mnist.load_data()
    else:
        with np.load(source) as arrays:
            train, test = arrays["x_train"], arrays["x_test"]
    return train[..., np.newaxis].astype("float32") / 255, test[..., np.newaxis].astype("float32") / 255


# --- 6. The figure: decoded images over the latent plane -------------------------------------------------------------
def save_grid(decoder: keras.Model, path: Path, n: int = 30) -> None:
    """Decode an n×n grid of z in [-1, 1]² and save one figure. z[0] increases to the right, z[1] upward."""
    axis = np.linspace(-1, 1, n, dtype="float32")
    z = np.stack(np.meshgrid(axis, axis[::-1]), axis=-1).reshape(-1, 2)
    means = ops.convert_to_numpy(decoder(z))  # all n² codes in one batch
    grid = means.reshape(n, n, 28, 28).transpose(0, 2, 1, 3).reshape(n * 28, n * 28)
    # Without pyplot, a figure needs no display.
    figure = Figure(figsize=(12, 12), layout="tight")
    axes = figure.add_subplot(xlabel="z[0]", ylabel="z[1]")
    edge = 1 + 1 / (n - 1)  # half a cell beyond 1, so that the ticks are at the centers of the cells
    axes.imshow(grid, cmap="Grays_r", vmin=0, vmax=1, extent=(-edge, edge, -edge, edge))
    figure.savefig(path)


def main() -> None:
    """Train, evaluate on the test images, and save the latent plane."""
    parser = argparse.ArgumentParser(description="Train the classic VAE and draw its latent plane.")
    parser.add_argument("--data", default="digits", help="digits (default), mnist, or the path of an mnist.npz file")
    parser.add_argument("--epochs", type=int, help="default: 30; 60 on digits")
    parser.add_argument("--batch-size", type=int, help="default: 128; 32 on digits")
    parser.add_argument("--beta", type=float, default=1.0, help="weight of the KL (default 1; the tutorial's is 0.5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=30, help="images along each side of the grid (default 30)")
    parser.add_argument("--out", type=Path, default=Path("latent-grid.png"))
    args = parser.parse_args()
    # MNIST has 40 times more images than digits, which therefore needs smaller batches and more epochs.
    epochs, batch_size = (60, 32) if args.data == "digits" else (30, 128)
    epochs = epochs if args.epochs is None else args.epochs
    batch_size = batch_size if args.batch_size is None else args.batch_size
    if min(epochs, batch_size, args.n - 1) < 1:
        parser.error("--epochs and --batch-size must be at least 1, --n at least 2")
    if keras.backend.backend() != "tensorflow":
        parser.error("tf.GradientTape needs the TensorFlow backend; unset KERAS_BACKEND")

    keras.utils.set_random_seed(args.seed)  # the initial weights and the order of the images
    train, test = load_images(args.data)
    vae = VAE(build_encoder(), build_decoder(), beta=args.beta, seed=args.seed)
    # By default, Keras compiles with XLA, whose convolutions on a CPU are about half as fast as TensorFlow's.
    vae.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    vae.fit(train, epochs=epochs, batch_size=batch_size, verbose=2)
    losses = vae.evaluate(test, batch_size=batch_size, verbose=0, return_dict=True)
    print("Test images, nats per image:", ", ".join(f"{name} {value:.1f}" for name, value in losses.items()))
    save_grid(vae.decoder, args.out, args.n)
    print(f"Latent grid: {args.out.resolve()}")


if __name__ == "__main__":
    main()

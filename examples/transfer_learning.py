"""Train a classifier with few labels on the frozen encoder of a variational autoencoder.

A VAE learns from all images, without labels. Its encoder then maps an image to a few numbers, from which a linear
classifier learns with far fewer labels than from pixels:

    python examples/transfer_learning.py               # scikit-learn's small digits, nothing to download

`vae.image_encoder` is a Keras model of uint8 images that shares the VAE's weights. Here it stays frozen. As a layer of
another Keras model, it can be trained further.
"""

import argparse

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from keras_vae import VAE
from keras_vae.networks import MLP


def load_images(labels_per_class: int) -> tuple[np.ndarray, ...]:
    """Return training images, a labeled subset of them with its labels, and test images with their labels."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype("uint8")[..., np.newaxis]
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], digits.target[order]
    train, test = slice(0, 1297), slice(1297, None)
    labeled = np.concatenate([np.flatnonzero(labels[train] == digit)[:labels_per_class] for digit in range(10)])
    return images[train], images[labeled], labels[labeled], images[test], labels[test]


def main() -> None:
    """Train the VAE, fit both classifiers, and print their accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40, help="epochs of the VAE (default 40)")
    parser.add_argument("--labels-per-class", type=int, default=3, help="labeled images per digit (default 3)")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    images, labeled_images, labels, test_images, test_labels = load_images(arguments.labels_per_class)

    network, shape = MLP(), images.shape[1:]
    # With a small beta, the codes contain more information about an image.
    vae = VAE(network.encoder(shape, 10), network.decoder(10, shape), beta=0.2, seed=0)
    vae.compile(keras.optimizers.Adam(2e-3))
    vae.fit(images, batch_size=64, epochs=arguments.epochs, verbose=0)

    encoder = vae.image_encoder
    codes, test_codes = (encoder.predict(batch, verbose=0)["z_mean"] for batch in (labeled_images, test_images))
    pixels, test_pixels = (batch.reshape(len(batch), -1) / 255 for batch in (labeled_images, test_images))
    for name, features, test_features in (("VAE", codes, test_codes), ("pixels", pixels, test_pixels)):
        accuracy = LogisticRegression(max_iter=2000).fit(features, labels).score(test_features, test_labels)
        print(f"{len(labels)} labels, linear classifier on {name}: accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()

"""Few labels, many images: a classifier on the frozen encoder of a variational autoencoder.

A VAE learns from all images, without labels. Its encoder then turns an image into a few numbers, from which a linear
classifier learns with far fewer labels than from pixels:

    python examples/transfer_learning.py               # scikit-learn's small digits, nothing to download

`vae.image_encoder` is a Keras model of uint8 images that shares the VAE's weights. It is used as a layer here; to train
it along with the classifier, leave out the line that freezes it.
"""

import argparse
from collections.abc import Callable

import keras
import numpy as np
from sklearn.datasets import load_digits

from keras_vae import VAE


def load_images(labels_per_class: int) -> tuple[np.ndarray, ...]:
    """Return training images, the few of them that are labeled with their labels, and test images with theirs."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype("uint8")[..., np.newaxis]
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], digits.target[order]
    train, test = slice(0, 1297), slice(1297, None)
    few = np.concatenate([np.flatnonzero(labels[train] == digit)[:labels_per_class] for digit in range(10)])
    return images[train], images[few], labels[few], images[test], labels[test]


def accuracy_of_classifier(features: Callable, few: np.ndarray, labels: np.ndarray, test: tuple) -> float:
    """Train a linear classifier on features of the labeled images and return its accuracy on test images."""
    inputs = keras.Input(few.shape[1:], dtype="uint8")
    classifier = keras.Model(inputs, keras.layers.Dense(10)(features(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    classifier.fit(few, labels, batch_size=len(few), epochs=100, verbose=0)
    return float(classifier.evaluate(*test, verbose=0, return_dict=True)["accuracy"])


def main() -> None:
    """Train the VAE, then both classifiers, and print their accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="epochs of the VAE (default 30)")
    parser.add_argument("--labels-per-class", type=int, default=3, help="labeled images per digit (default 3)")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    images, few, labels, *test = load_images(arguments.labels_per_class)

    vae = VAE(latent_dim=10, image_shape=images.shape[1:], seed=0)
    vae.compile(keras.optimizers.Adam(2e-3))
    vae.fit(images, batch_size=64, epochs=arguments.epochs, verbose=0)

    encoder = vae.image_encoder
    encoder.trainable = False
    shape = images.shape[1:]
    pixels = keras.Sequential(
        [keras.Input(shape, dtype="uint8"), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    )
    for name, features in (("VAE", lambda inputs: encoder(inputs)["z_mean"]), ("pixels", pixels)):
        accuracy = accuracy_of_classifier(features, few, labels, tuple(test))
        print(f"{len(few)} labels, linear classifier on {name}: accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()

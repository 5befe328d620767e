"""Transfer learning: a classifier on the frozen encoder of a variational autoencoder.

The encoder of `mnist-16d`, a model that comes with keras-vae, was trained on MNIST without labels. This script reuses
it for another data set, scikit-learn's digits, of which only a few images are labeled:

    python examples/transfer_learning.py               # downloads nothing

`vae.image_encoder` is a Keras model: uint8 images → `{"z_mean", "z_log_var"}`. It shares its weights with the VAE. Use
`vae.encoder` only for images that are scaled to [0, 1] already.

The script prints the test accuracy of a linear classifier on the 16 codes and, as a baseline, on the 784 pixels. The
codes contain what a decoder needs, not what separates classes, so compare them with such a baseline.
"""

import argparse

import keras
import numpy as np
from keras import layers

import keras_vae
from keras_vae.data import sources


def split_labels(labels: np.ndarray, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of some labeled images of each class, and of all other images."""
    order = np.random.default_rng(seed).permutation(len(labels))
    labeled = np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels)])
    return labeled, np.setdiff1d(order, labeled)


def build_classifier(features: keras.layers.Layer, image_shape: tuple[int, ...]) -> keras.Model:
    """Return a linear classifier of ten classes on features of uint8 images."""
    images = keras.Input(image_shape, dtype="uint8")
    outputs = features(images)
    vectors = outputs["z_mean"] if isinstance(outputs, dict) else outputs
    classifier = keras.Model(images, layers.Dense(10, activation="softmax")(vectors))
    classifier.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return classifier


def main() -> None:
    """Train both classifiers on the same labeled images and print their test accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels-per-class", type=int, default=10, help="labeled images per digit (default 10)")
    parser.add_argument("--epochs", type=int, default=200, help="epochs of the classifiers (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the labeled images (default 0)")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    digits = sources.load("digits").train
    labeled, test = split_labels(digits.labels, arguments.labels_per_class, arguments.seed)

    encoder = keras_vae.load("mnist-16d").image_encoder
    encoder.trainable = False  # remove this line to train the encoder together with the classifier
    pixels = keras.Sequential([layers.Rescaling(1 / 255), layers.Flatten()])
    for name, features in (("16 codes", encoder), ("784 pixels", pixels)):
        classifier = build_classifier(features, digits.image_shape)
        images, labels = digits.images[labeled], digits.labels[labeled]
        classifier.fit(images, labels, batch_size=len(labeled), epochs=arguments.epochs, verbose=0)
        measured = classifier.evaluate(digits.images[test], digits.labels[test], verbose=0, return_dict=True)
        print(f"{len(labeled)} labeled images, linear classifier on {name}: accuracy {measured['accuracy']:.3f}")


if __name__ == "__main__":
    main()

"""Comparison of the quality of the trained classic model, ours and in plain Keras, in nats per held-out image.

    python -m benchmarks.quality --epochs 30 --seeds 3

`plain` is `examples/from_scratch.py` in float32; the others are `VAE().fit` in two precisions. All use Adam and keep
the weights of the last epoch. Each training runs in its own process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

CONTENDERS = ("plain", "float32", "mixed_bfloat16")
TRAIN = """
import sys
contender, source, epochs, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if contender != "plain":
    import keras_vae
import keras
from benchmarks.contenders import example
from keras_vae.data import sources

data = sources.load(source)
train, test = data.train.images, data.test.images if data.test is not None else data.train.images[-297:]
train = train if data.test is not None else train[:-297]
keras.utils.set_random_seed(seed)
if contender == "plain":
    model = example().VAE(example().build_encoder(), example().build_decoder(), seed=seed)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    train, test = (images.astype("float32") / 255 for images in (train, test))
else:
    keras.config.set_dtype_policy(contender)
    model = keras_vae.VAE(seed=seed)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
model.fit(train, batch_size=128, epochs=epochs, verbose=0)
if contender == "plain":
    nats = float(model.evaluate(test, batch_size=1000, verbose=0, return_dict=True)["total_loss"])
else:
    nats = -float(model.elbo(test).mean())
print(nats)
"""


def nats(contender: str, source: str, epochs: int, seed: int) -> float:
    """Train, and return the mean negative ELBO of held-out images in nats."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", TRAIN, contender, source, str(epochs), str(seed)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Train, print one line per training, then the mean, spread and difference from plain Keras of each contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="a source of keras_vae.data")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    arguments = parser.parse_args()
    results: dict[str, list[float]] = {contender: [] for contender in arguments.contenders}
    for seed in range(arguments.seeds):
        for contender, values in results.items():
            values.append(nats(contender, arguments.data, arguments.epochs, seed))
            print(
                json.dumps({"contender": contender, "seed": seed, "epochs": arguments.epochs, "nats": values[-1]}),
                flush=True,
            )
    for contender, values in results.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        text = f"{contender}: {statistics.mean(values):.2f} nats per image, {spread:.2f} standard deviation over seeds"
        if contender != "plain" and "plain" in results:
            text += f"; {statistics.mean(values) - statistics.mean(results['plain']):+.2f} relative to plain Keras"
        print(text)


if __name__ == "__main__":
    main()

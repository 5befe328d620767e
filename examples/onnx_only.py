"""Run an exported model with ONNX Runtime and NumPy only, using its manifest.

    vae export runs/classic --format onnx
    python examples/onnx_only.py runs/classic/export/onnx images.npy samples.npy

The program encodes, decodes and reconstructs images, samples new ones, scores each image as an anomaly, and prints a
summary.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


class ExportedModel:
    """The graphs in an exported folder, with a check of their inputs.

    Args:
        folder: A folder written by `vae export`.
    """

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        self.graphs = self.manifest["graphs"]
        self.sessions = {
            name: onnxruntime.InferenceSession(str(folder / graph["file"])) for name, graph in self.graphs.items()
        }

    def __call__(self, graph: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run a graph on named arrays, and return its outputs by name."""
        for name, port in self.graphs[graph]["inputs"].items():
            values, shape = inputs[name], tuple(port["shape"])
            # The first axis is the batch, of any size.
            fits = values.shape[1:] == shape[1:] and values.ndim == len(shape)
            if not fits or values.dtype != port["dtype"]:
                raise SystemExit(
                    f"{name} = {values.dtype} of shape {values.shape}: does not fit the graph; pass {port['dtype']} of "
                    f"shape {shape}"
                )
            low, high = port["range"] or (-np.inf, np.inf)
            if not (values.min() >= low and values.max() <= high):
                raise SystemExit(
                    f"{name} = {values.min()} to {values.max()}: out of range; pass values from {low} to {high}"
                )
        outputs = list(self.graphs[graph]["outputs"])
        return dict(zip(outputs, self.sessions[graph].run(outputs, inputs), strict=True))

    def percentiles(self, scores: np.ndarray) -> np.ndarray | None:
        """Return the percentages of training images with a lower score, or None if the export has no such table."""
        table = self.manifest["score"]["percentiles"]
        return None if table is None else np.interp(scores, table["score"], table["levels"])


def main() -> None:
    """Run all graphs."""
    if len(sys.argv) != 4:
        raise SystemExit("usage: python onnx_only.py FOLDER IMAGES.npy SAMPLES.npy")
    model, images = ExportedModel(Path(sys.argv[1])), np.load(sys.argv[2])
    decoder = model.graphs["decoder"]["inputs"]
    condition = {}
    if "condition" in decoder:
        condition["condition"] = np.zeros(
            [len(images), *decoder["condition"]["shape"][1:]], decoder["condition"]["dtype"]
        )
    (code_name,) = decoder.keys() - {"condition"}

    codes = model("encoder", images=images, **condition)
    decoded = model("decoder", **{code_name: codes[model.manifest["code_output"]]}, **condition)["mean_images"]
    reconstructions = model("reconstruct", images=images, **condition)["mean_images"]
    unit_images = images / 255 if images.dtype == np.uint8 else images
    print("codes", {name: values.shape for name, values in codes.items()})
    print("largest difference between decoded codes and reconstructions", np.abs(decoded - reconstructions).max())
    print("mean absolute error of the reconstructions", np.abs(reconstructions - unit_images).mean())

    if "sampler" in model.graphs:
        # Graphs are deterministic, so the caller draws the noise and chooses its seed.
        size = model.graphs["sampler"]["inputs"]["noise"]["shape"][1]
        noise = np.random.default_rng(0).standard_normal((len(images), size), dtype="float32")
        np.save(sys.argv[3], model("sampler", noise=noise, **condition)["mean_images"])
        print("samples", sys.argv[3])
    else:
        print("no sampler:", model.manifest["omitted"]["sampler"])

    if "score" in model.graphs:
        scores = model("score", images=images, **condition)["score"]
        percentiles, limit = model.percentiles(scores), model.manifest["score"]["threshold"]
        for index in np.argsort(-scores)[:3]:
            line = f"image {index}: score {scores[index]:.2f} nats"
            if percentiles is not None:
                anomaly = ", an anomaly" if scores[index] > limit["value"] else ""
                line += f", percentile {percentiles[index]:.1f}{anomaly}"
            print(line)
    else:
        print("no score:", model.manifest["omitted"]["score"])


if __name__ == "__main__":
    main()

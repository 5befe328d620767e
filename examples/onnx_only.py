"""An exported model in a program that has ONNX Runtime and NumPy alone: everything it knows is in the manifest.

    vae export runs/classic --format onnx
    python examples/onnx_only.py runs/classic/export/onnx images.npy drawn.npy

Encodes, decodes and reconstructs images, draws new ones from noise of its own, and prints what came of it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


class Exported:
    """The graphs of a folder, called with arrays by name, after a look at them.

    Args:
        folder: What `vae export` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        self.graphs = self.manifest["graphs"]
        self.sessions = {
            name: onnxruntime.InferenceSession(str(folder / graph["file"])) for name, graph in self.graphs.items()
        }

    def __call__(self, graph: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return a graph's outputs by name."""
        for name, port in self.graphs[graph]["inputs"].items():
            values, shape = inputs[name], tuple(port["shape"])
            # The first size is open.
            fits = values.shape[1:] == shape[1:] and values.ndim == len(shape)
            if not fits or values.dtype != port["dtype"]:
                raise SystemExit(f"{name}: {values.dtype} of shape {values.shape}; it takes {port['dtype']} {shape}")
            low, high = port["range"] or (-np.inf, np.inf)
            if not (values.min() >= low and values.max() <= high):
                raise SystemExit(f"{name}: from {values.min()} to {values.max()}; it takes {low} to {high}")
        outputs = list(self.graphs[graph]["outputs"])
        return dict(zip(outputs, self.sessions[graph].run(outputs, inputs), strict=True))


def main() -> None:
    """Run every graph."""
    if len(sys.argv) != 4:
        raise SystemExit("usage: python onnx_only.py FOLDER IMAGES.npy DRAWN.npy")
    model, images = Exported(Path(sys.argv[1])), np.load(sys.argv[2])
    decoder = model.graphs["decoder"]["inputs"]
    told = {}
    if "condition" in decoder:
        told["condition"] = np.zeros([len(images), *decoder["condition"]["shape"][1:]], decoder["condition"]["dtype"])
    (code,) = decoder.keys() - {"condition"}

    codes = model("encoder", images=images, **told)
    decoded = model("decoder", **{code: codes[model.manifest["code"]]}, **told)["mean_images"]
    again = model("reconstruct", images=images, **told)["mean_images"]
    seen = images / 255 if images.dtype == np.uint8 else images
    print("codes", {name: values.shape for name, values in codes.items()})
    print("decoding the codes and reconstructing the images differ by", np.abs(decoded - again).max())
    print("mean absolute error of the reconstructions", np.abs(again - seen).mean())

    if "sampler" in model.graphs:
        # The draw stands here, outside the graph: other noise, or a seed, is for the caller to choose.
        size = model.graphs["sampler"]["inputs"]["noise"]["shape"][1]
        noise = np.random.default_rng(0).standard_normal((len(images), size), dtype="float32")
        np.save(sys.argv[3], model("sampler", noise=noise, **told)["mean_images"])
        print("drawn", sys.argv[3])
    else:
        print("no sampler:", model.manifest["left_out"]["sampler"])


if __name__ == "__main__":
    main()

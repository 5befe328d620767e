"""ONNX, for ONNX Runtime and other runtimes."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_vae.integrations.export.formats.base import Format

if TYPE_CHECKING:
    import keras

    from keras_vae.integrations.export.formats.base import Graph


def write(network: "keras.Model", file: Path) -> None:
    """Write a graph, and name its variable first dimension `batch`."""
    import onnx

    _register_erfc()
    with warnings.catch_warnings():
        # Keras uses a deprecated name of NumPy to support tf2onnx.
        warnings.filterwarnings("ignore", category=FutureWarning, module="keras")
        network.export(file, format="onnx", verbose=False, input_signature=[network.input])
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    tensors = {**network.input, **network.output}
    for port in (*model.graph.input, *model.graph.output):
        shape = ("batch", *tensors[port.name].shape[1:])
        port.CopyFrom(onnx.helper.make_tensor_value_info(port.name, port.type.tensor_type.elem_type, shape))
    onnx.save(model, file)


def _register_erfc() -> None:
    """Let tf2onnx convert erfc, which the exact GELU uses, to 1 − erf."""
    import numpy as np
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, graph: Any, node: Any, **kwargs: Any) -> None:
            (output,) = node.output
            shape, dtype = graph.get_shape(output), graph.get_dtype(output)
            graph.remove_node(node.name)
            erf = graph.make_node("Erf", node.input, shapes=[shape], dtypes=[dtype])
            one = graph.make_const(f"{node.name}/one", np.float32(1))
            graph.make_node("Sub", [one.output[0], erf.output[0]], outputs=[output], shapes=[shape], dtypes=[dtype])


def load(path: str) -> "Graph":
    """Load a graph from a file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda **inputs: dict(zip(names, session.run(names, inputs), strict=True))


ONNX = Format("onnx", ".onnx", write, load, "onnxruntime", ("onnx", "onnxruntime", "tf2onnx"), "onnx")

"""ONNX, for ONNX Runtime and other runtimes."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_vae.integrations.export.formats.base import Format

if TYPE_CHECKING:
    import keras

    from keras_vae.integrations.export.formats.base import Graph


def write(network: "keras.Model", file: Path) -> None:
    """Write a graph, and name its variable first dimension `batch`."""
    import onnx

    _register_operations()
    # An operation that cannot be converted is an error of the export, which the caller reports in one line.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        # Keras uses a deprecated name of NumPy to support tf2onnx.
        warnings.filterwarnings("ignore", category=FutureWarning, module="keras")
        network.export(file, format="onnx", verbose=False, input_signature=[network.input])
    model = onnx.load(file)
    _set_padding(model.graph)
    onnx.checker.check_model(model, full_check=True)
    tensors = {**network.input, **network.output}
    for port in (*model.graph.input, *model.graph.output):
        shape = ("batch", *tensors[port.name].shape[1:])
        port.CopyFrom(onnx.helper.make_tensor_value_info(port.name, port.type.tensor_type.elem_type, shape))
    onnx.save(model, file)


def _set_padding(graph: Any) -> None:
    """Let transposed convolutions cut odd excess off at the end, as TensorFlow does; the default of ONNX is the start.

    This concerns nodes whose input size is unknown to tf2onnx, which then writes `output_shape` instead of paddings.
    """
    import onnx

    for node in graph.node:
        attributes = {attribute.name for attribute in node.attribute}
        if node.op_type == "ConvTranspose" and "output_shape" in attributes and "pads" not in attributes:
            node.attribute.append(onnx.helper.make_attribute("auto_pad", "SAME_UPPER"))


def _register_operations() -> None:
    """Let tf2onnx convert erfc, which the exact GELU uses, to 1 − erf, and exp(x) − 1 to (exp(x) + 1)·tanh(x/2).

    The latter is exact, and without cancellation for small x.
    """
    import numpy as np
    from tf2onnx.handler import tf_op

    def replace(graph: Any, node: Any, kind: str, make_inputs: Callable[[Any], list[str]]) -> None:
        (output,) = node.output
        shape, dtype = graph.get_shape(output), graph.get_dtype(output)
        graph.remove_node(node.name)

        def make(kind: str, *inputs: str) -> str:
            name: str = graph.make_node(kind, list(inputs), shapes=[shape], dtypes=[dtype]).output[0]
            return name

        graph.make_node(kind, make_inputs(make), outputs=[output], shapes=[shape], dtypes=[dtype])

    def constant(graph: Any, node: Any, name: str, value: float) -> str:
        output: str = graph.make_const(f"{node.name}/{name}", np.float32(value)).output[0]
        return output

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, graph: Any, node: Any, **kwargs: Any) -> None:
            one = constant(graph, node, "one", 1)
            replace(graph, node, "Sub", lambda make: [one, make("Erf", *node.input)])

    @tf_op("Expm1")
    class Expm1:
        @classmethod
        def version_9(cls, graph: Any, node: Any, **kwargs: Any) -> None:
            (x,), one, half = node.input, constant(graph, node, "one", 1), constant(graph, node, "half", 0.5)
            replace(
                graph,
                node,
                "Mul",
                lambda make: [make("Add", make("Exp", x), one), make("Tanh", make("Mul", x, half))],
            )


def load(path: str) -> "Graph":
    """Load a graph from a file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda **inputs: dict(zip(names, session.run(names, inputs), strict=True))


ONNX = Format("onnx", ".onnx", write, load, "onnxruntime", ("onnx", "onnxruntime", "tf2onnx"), "onnx")

"""Functions that depend on the backend of Keras: only these modules import TensorFlow, JAX or PyTorch."""

from keras_vae.core.backend.distribution import (
    Prefetch,
    check_replicas,
    distribute,
    distributed,
    map_rows,
    num_replicas,
    rejected_indivisible_batches,
)
from keras_vae.core.backend.gradients import compiled, is_concrete, value_and_gradient
from keras_vae.core.backend.hardware import (
    describe_software,
    devices,
    enable_determinism,
    name,
    num_inference_threads,
    preferred_precision,
    prefers_matmul_for_few_filters,
    prefers_matmul_to_convolution,
    runs_faster_without_xla,
    supports_batches_of_one,
    warn_of_wrong_gradients,
)
from keras_vae.core.backend.pipelines import array_pipeline, batch_pipeline, is_data_source, peek

__all__ = [
    "Prefetch",
    "array_pipeline",
    "batch_pipeline",
    "check_replicas",
    "compiled",
    "describe_software",
    "devices",
    "distribute",
    "distributed",
    "enable_determinism",
    "is_concrete",
    "is_data_source",
    "map_rows",
    "name",
    "num_inference_threads",
    "num_replicas",
    "peek",
    "preferred_precision",
    "prefers_matmul_for_few_filters",
    "prefers_matmul_to_convolution",
    "rejected_indivisible_batches",
    "runs_faster_without_xla",
    "supports_batches_of_one",
    "value_and_gradient",
    "warn_of_wrong_gradients",
]

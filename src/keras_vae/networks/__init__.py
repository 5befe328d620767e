"""Networks: families of encoders and decoders for images of any size."""

# Importing the package registers every family, whichever of its modules was asked for.
from keras_vae.networks import conv, mlp, resnet  # noqa: F401

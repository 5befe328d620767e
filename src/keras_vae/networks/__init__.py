"""Networks: families of encoders and decoders for images of any size."""

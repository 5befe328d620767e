"""The classic model in other libraries: plain Keras, handwritten PyTorch, and pythae."""

import functools
import tempfile
from typing import Any

from benchmarks.workload import BATCH_SIZE, Chunks, chunks_of, digits


def plain_vae() -> Any:
    """Return the classic model in plain Keras, with its loss in `compute_loss`, which runs on every backend."""
    import keras
    from keras import layers, ops

    conv = functools.partial(layers.Conv2D, kernel_size=3, padding="same")
    transposed = functools.partial(layers.Conv2DTranspose, kernel_size=3, padding="same", strides=2, activation="relu")

    class PlainVAE(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = keras.Sequential(
                [
                    keras.Input((28, 28, 1)),
                    conv(32, strides=2, activation="relu"),
                    conv(64, strides=2, activation="relu"),
                    layers.Flatten(),
                    layers.Dense(16, activation="relu"),
                    layers.Dense(4),
                ]
            )
            self.decoder = keras.Sequential(
                [
                    keras.Input((2,)),
                    layers.Dense(7 * 7 * 64, activation="relu"),
                    layers.Reshape((7, 7, 64)),
                    transposed(64),
                    transposed(32),
                    conv(1, activation="sigmoid"),
                ]
            )
            self.seeds = keras.random.SeedGenerator(0)
            self.built = True

        def call(self, images: Any) -> Any:
            return images

        def compute_loss(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
            z_mean, z_log_var = ops.split(self.encoder(x), 2, axis=1)
            noise = keras.random.normal(ops.shape(z_mean), seed=self.seeds)
            means = self.decoder(z_mean + ops.exp(0.5 * z_log_var) * noise)
            reconstruction = ops.sum(ops.binary_crossentropy(x, means), axis=(1, 2, 3))
            kl = -0.5 * ops.sum(1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var), axis=1)
            return ops.mean(reconstruction + kl)

    return PlainVAE()


def torch_by_hand(dtype: str) -> Chunks:
    """Train the model in PyTorch: eager, channels last, with autocast if `dtype` is bfloat16."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(0)
    encoder = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(3136, 16), nn.ReLU(), nn.Linear(16, 4)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(2, 3136), nn.ReLU(), nn.Unflatten(1, (64, 7, 7))),
        *(nn.ConvTranspose2d(64, 64, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU()),
        nn.Conv2d(32, 1, 3, 1, 1),
    )
    model = nn.ModuleList([encoder, decoder]).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    images = torch.from_numpy(digits(50)).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def fit(steps: int) -> None:
        order = torch.randperm(steps * BATCH_SIZE)
        for chosen in order.split(BATCH_SIZE):
            x = images[chosen].float() / 255
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                z_mean, z_log_var = encoder(x).float().chunk(2, dim=1)
                logits = decoder(z_mean + (0.5 * z_log_var).exp() * torch.randn_like(z_mean)).float()
            distortion = functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2, 3))
            kl = -0.5 * (1 + z_log_var - z_mean.square() - z_log_var.exp()).sum(1)
            loss = (distortion + kl).mean()
            loss.backward()
            optimizer.step()
        loss.item()

    return chunks_of(fit)


def pythae_networks(latent_dim: int) -> tuple[Any, Any]:
    """Return the encoder and the decoder of the classic model for pythae, with any number of latent dimensions."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from torch import nn

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            features = max(16, 8 * latent_dim)
            self.body = nn.Sequential(
                *(nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten()),
                *(nn.Linear(3136, features), nn.ReLU()),
            )
            self.z_mean, self.z_log_var = nn.Linear(features, latent_dim), nn.Linear(features, latent_dim)

        def forward(self, x: Any) -> Any:
            features = self.body(x)
            return ModelOutput(embedding=self.z_mean(features), log_covariance=self.z_log_var(features))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *(nn.Linear(latent_dim, 3136), nn.ReLU(), nn.Unflatten(1, (64, 7, 7))),
                *(nn.ConvTranspose2d(64, 64, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU()),
                *(nn.Conv2d(32, 1, 3, 1, 1), nn.Sigmoid()),
            )

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=self.body(z))

    return Encoder(), Decoder()


def pythae_model() -> Any:
    """Return pythae's VAE of the same architecture."""
    from pythae.models import VAE, VAEConfig

    encoder, decoder = pythae_networks(latent_dim=2)
    return VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=2, reconstruction_loss="bce"), encoder, decoder)


def pythae() -> Chunks:
    """Train pythae's VAE with `BaseTrainer.train_step` of pythae, one epoch per chunk."""
    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    images = torch.from_numpy(digits(50).transpose(0, 3, 1, 2).astype("float32") / 255)
    model = pythae_model()

    def trainer_of(steps: int) -> Any:
        chosen = images[: steps * BATCH_SIZE]
        config = BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH_SIZE, learning_rate=1e-3, no_cuda=True
        )
        trainer = BaseTrainer(model, BaseDataset(chosen, torch.ones(len(chosen))), training_config=config)
        trainer.prepare_training()
        return trainer

    trainers = functools.cache(trainer_of)
    return chunks_of(lambda steps: trainers(steps).train_step(1))

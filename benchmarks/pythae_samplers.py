"""Models of pythae, trained by pythae, with the interface by which `measure_samples` draws images."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.other_libraries import pythae_networks
from keras_vae.core.typing import Array


class PythaeSampler:
    """A fitted sampler of pythae.

    Args:
        sampler: The sampler.
    """

    condition = None

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def sample(self, n: int, *, seed: int, condition: None = None) -> Array:
        """Return mean images in [0, 1], (n, H, W, C)."""
        import torch

        torch.manual_seed(seed)
        # scikit-learn's mixture draws from the global generator of NumPy.
        np.random.seed(seed)
        images = self.sampler.sample(num_samples=n, batch_size=n, return_gen=True)
        return images.detach().numpy().transpose(0, 2, 3, 1).clip(0, 1)


def train_samplers(
    name: str, images: Array, epochs: int, latent_dim: int, seed: int, folder: Path
) -> dict[str, PythaeSampler]:
    """Train a model with pythae's trainer, fit its samplers, and return them by name.

    The networks are those of the classic model, for gray images of 28×28 pixels, with more latent dimensions. The
    trainer has its defaults, except for the learning rate 1e-3 and batches of 128.

    Args:
        name: `"VAE"`, `"RAE_L2"` or `"VAMP"`.
        images: Training images, uint8 (N, H, W, C).
        epochs: Number of epochs.
        latent_dim: Number of latent dimensions.
        seed: Seed of the training.
        folder: Folder for the files of pythae.
    """
    import pythae.models
    import torch
    from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig, NormalSampler
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    torch.manual_seed(seed)
    encoder, decoder = pythae_networks(latent_dim)
    config = getattr(pythae.models, f"{name}_Config" if name == "RAE_L2" else f"{name}Config")(
        input_dim=(images.shape[3], *images.shape[1:3]), latent_dim=latent_dim, reconstruction_loss="mse"
    )
    model = getattr(pythae.models, name)(config, encoder=encoder, decoder=decoder)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype("float32") / 255)
    dataset = pythae.data.datasets.BaseDataset(pixels, torch.zeros(len(pixels)))
    settings = BaseTrainerConfig(
        output_dir=str(folder),
        num_epochs=epochs,
        per_device_train_batch_size=128,
        learning_rate=1e-3,
        seed=seed,
        no_cuda=True,
    )
    BaseTrainer(model, dataset, training_config=settings).train()
    mixture = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=10))
    mixture.fit(pixels)
    return {"normal": PythaeSampler(NormalSampler(model)), "mixture": PythaeSampler(mixture)}

"""Lines of experiment files and of Python that select a component."""

from collections.abc import Iterator, Mapping


def selection(kind: str, name: str, class_name: str) -> Iterator[str]:
    """Iterate over the lines of an experiment file, or of a command, and of Python that select a component."""
    values = {"name": name, "call": class_name, "module": class_name.partition(".")[0]}
    for language, code in (OTHER_SELECTION.get((kind, name)) or SELECTION[kind]).items():
        yield from (f"```{language}", code.format(**values), "```", "")


def _vae(argument: str) -> str:
    return f"from keras_vae import VAE, {{module}}\n\nvae = VAE({argument})"


SELECTION: Mapping[str, Mapping[str, str]] = {
    "architecture": {
        "toml": '[model]\narchitecture = "{name}"',
        "python": "from keras_vae import {call}\n\nvae = {call}()",
    },
    "network": {
        "toml": '[model]\nnetwork = "{name}"',
        "python": "from keras_vae import VAE, networks\n\nnetwork = {call}()\n"
        "vae = VAE(network.encoder((28, 28, 1), 16), network.decoder(16, (28, 28, 1)))",
    },
    "prior": {"toml": '[model]\nprior = "{name}"', "python": _vae("prior={call}()")},
    "posterior": {"toml": '[model]\nposterior = "{name}"', "python": _vae("posterior={call}()")},
    "likelihood": {"toml": '[model]\nlikelihood = "{name}"', "python": _vae("likelihood={call}()")},
    "objective": {"toml": '[model]\nobjective = "{name}"', "python": _vae("objective={call}()")},
    "image_loss": {
        "toml": '[model]\nimage_losses = [{{ name = "{name}" }}]',
        "python": _vae("image_losses=[{call}()]"),
    },
    "quantizer": {
        "toml": '[model]\narchitecture = {{ name = "vq", quantizer = "{name}" }}',
        "python": "from keras_vae import VQVAE, networks, quantizers\n\n"
        "vae = VQVAE.from_network(networks.Conv(), (28, 28, 1), quantizer={call}())",
    },
    "condition": {"toml": '[model]\ncondition = "{name}"', "python": _vae("condition={call}()")},
    "schedule": {
        "toml": '[model]\nobjective = {{ name = "elbo", schedule = "{name}" }}',
        "python": "from keras_vae import VAE, objectives, schedules\n\n"
        "vae = VAE(objective=objectives.ELBO(schedule={call}()))",
    },
}
"""Lines of an experiment file and of Python that select a component, by kind."""

_ANNEALING = {
    "toml": SELECTION["schedule"]["toml"],
    "python": SELECTION["schedule"]["python"].replace("{call}()", "{call}(steps=5000)"),
}
_RATE = '[training]\nschedule = "{name}"'

OTHER_SELECTION: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("architecture", "vq"): {
        "toml": SELECTION["architecture"]["toml"],
        "python": "from keras_vae import VQVAE, networks\n\nvae = VQVAE.from_network(networks.Conv(), (28, 28, 1))",
    },
    ("network", "autoencoder"): {
        "toml": SELECTION["network"]["toml"],
        "python": "from keras_vae import VAE, likelihoods, networks\n\nnetwork = {call}()\n"
        "vae = VAE(\n    network.encoder((64, 64, 3), 4 * 16 * 16),\n    network.decoder(4 * 16 * 16, (64, 64, 3)),\n"
        "    likelihood=likelihoods.Laplace(),\n)",
    },
    ("prior", "flow-matching"): {
        "bash": "vae fit-prior RUN --prior {name}",
        "python": 'from keras_vae import fit_prior\n\nfit_prior(run, prior="{name}")  # a trained run',
    },
    ("prior", "conditional-normal"): {
        "toml": '[model]\nprior = "{name}"\ncondition = "label"',
        "python": "from keras_vae import VAE, conditions, priors\n\n"
        "vae = VAE(prior={call}(), condition=conditions.ClassLabel(classes=10))",
    },
    ("objective", "beta-tc"): {
        "toml": SELECTION["objective"]["toml"],
        "python": _vae("objective={call}(images=60_000)"),
    },
    ("image_loss", "adversarial"): {
        "toml": SELECTION["image_loss"]["toml"],
        "python": _vae("image_losses=[{call}(start=5000)]"),
    },
    ("image_loss", "perceptual"): {
        "toml": SELECTION["image_loss"]["toml"],
        "python": _vae('image_losses=[{call}(features="random")]'),
    },
    ("image_loss", "equivariance"): {
        "toml": '[model]\nnetwork = "autoencoder"\nimage_losses = [{{ name = "{name}" }}]',
        "python": "from keras_vae import VAE, image_losses, networks\n\nnetwork = networks.Autoencoder()\n"
        "vae = VAE(\n    network.encoder((64, 64, 1), 4 * 16 * 16),\n    network.decoder(4 * 16 * 16, (64, 64, 1)),\n"
        "    image_losses=[{call}()],\n)",
    },
    ("quantizer", "residual"): {
        "toml": SELECTION["quantizer"]["toml"],
        "python": "from keras_vae import VQVAE, networks, quantizers\n\n"
        "quantizer = {call}(quantizers.SimVQ(num_codes=256))\n"
        "vae = VQVAE.from_network(networks.Conv(), (28, 28, 1), quantizer=quantizer)",
    },
    ("condition", "vector"): {"python": _vae("condition={call}(size=3)")},
    ("schedule", "warm-up"): _ANNEALING,
    ("schedule", "cyclical"): _ANNEALING,
    ("schedule", "cosine"): {"toml": _RATE},
    ("schedule", "exponential"): {"toml": _RATE},
}
"""The same for components that need arguments, or that are selected elsewhere."""

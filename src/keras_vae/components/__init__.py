"""Components of a model, each replaceable: priors, posteriors, quantizers, likelihoods, objectives and so on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    [
        "autoregressive_prior",
        "conditions",
        "image_losses",
        "likelihoods",
        "objectives",
        "optimizers",
        "posteriors",
        "priors",
        "quantizers",
        "schedules",
    ],
)

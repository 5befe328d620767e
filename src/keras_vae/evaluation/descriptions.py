"""Names and explanations of numbers and figures, for readers who do not know VAEs."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

NAMES = {
    "nll": "negative log-likelihood",
    "bits_per_dim": "bits per dimension",
    "total_loss": "total loss",
    "negative_elbo": "negative ELBO",
    "reconstruction_loss": "reconstruction loss",
    "kl_loss": "KL loss",
    "learning_rate": "learning rate",
    "seconds": "seconds",
}

NUMBERS = {
    "nll": (
        "The cost of describing an image with the model, estimated from {samples} draws of the code per image. It"
        " is comparable across models of all kinds. Lower is better."
    ),
    "negative_elbo": (
        "An upper bound on the negative log-likelihood: reconstruction loss plus KL loss. Lower is better, among models"
        " measured on the same images in the same way."
    ),
    "reconstruction_loss": (
        "How poorly the decoder predicts the pixels from the code. It is high if reconstructions are blurred or wrong."
    ),
    "kl_loss": (
        "The information in a code, here {bits} bits. Near 0 the code is ignored (posterior collapse); if it is very"
        " high, samples look unlike the data."
    ),
    "bits_per_dim": "The negative log-likelihood per pixel and color channel, in bits. Lower is better.",
}
REQUIRED = ("negative_elbo", "reconstruction_loss", "kl_loss")


class Quantity(NamedTuple):
    """The name of a number, and its explanation."""

    label: str
    meaning: str


LATENTS = {
    "active_units": Quantity(
        "active dimensions",
        "Latent dimensions whose posterior mean varies over images. The others are unused, even if an offset from the"
        " prior costs KL.",
    ),
    "mutual_information": Quantity(
        "mutual information",
        "The information of a code about its image, in nats. A range shows bounds, if the number is not known.",
    ),
    "marginal_kl": Quantity(
        "marginal KL",
        "The distance of all codes together from the prior, in nats. Near 0, samples are as good as reconstructions."
        " A range shows bounds, if the number is not known: if its lower end is large, `vae fit-prior` helps.",
    ),
    "knn_accuracy": Quantity(
        "nearest-neighbor accuracy",
        "How often the labels of the nearest codes predict the label of an image. Higher is better.",
    ),
    "linear_probe_accuracy": Quantity(
        "linear-probe accuracy", "How often a linear classifier of codes predicts the label. Higher is better."
    ),
    "chance_accuracy": Quantity("chance accuracy", "How often the most frequent label is correct."),
}
SAMPLES = {
    "frechet_distance": Quantity(
        "Fréchet distance", "The distance between samples and real images in a feature space. Lower is better."
    ),
    "kid": Quantity(
        "KID", "The kernel Inception distance: a similar measure, unbiased for few images. Lower is better."
    ),
    "precision": Quantity("precision", "The share of samples that resemble a real image. Higher is better."),
    "recall": Quantity("recall", "The share of real images that resemble a sample. Higher is better."),
    "density": Quantity(
        "density", "Precision weighted by the number of real images nearby; about 1 for real images. Higher is better."
    ),
    "coverage": Quantity("coverage", "The share of real images with a sample nearby. Higher is better."),
}
IMAGE_QUALITY = {
    "psnr": Quantity(
        "PSNR",
        "The peak signal-to-noise ratio of reconstructions, in decibels: 20 is an average error of a tenth of the range"
        " of gray levels, 40 of a hundredth. Higher is better.",
    ),
    "ssim": Quantity(
        "SSIM",
        "The structural similarity of images and reconstructions: whether edges and contrasts agree. The best value is"
        " 1.",
    ),
    "perceptual_distance": Quantity(
        "perceptual distance",
        "The distance of images and reconstructions in the layers of a network, similar to LPIPS. Lower is better.",
    ),
    "reconstruction_frechet_distance": Quantity(
        "Fréchet distance of reconstructions",
        "The distance between the set of reconstructions and the set of images in a feature space. It grows if"
        " reconstructions are blurred. Lower is better.",
    ),
    "code_usage": Quantity("code usage", "The share of the codes that these images use."),
}
SCORES = {
    "beta_vae": Quantity(
        "BetaVAE score", "How well a linear classifier detects which factor two images share, given their codes."
    ),
    "factor_vae": Quantity(
        "FactorVAE score", "How well the dimension with the least variance reveals which factor several images share."
    ),
    "mig": Quantity(
        "mutual information gap",
        "The difference in information about a factor between the best and the second-best dimension.",
    ),
    "modularity": Quantity(
        "modularity", "Whether a dimension has information about a single factor. Not meaningful on its own."
    ),
    "sap": Quantity(
        "SAP", "The difference in accuracy between the best and the second-best dimension as predictors of a factor."
    ),
    "dci_disentanglement": Quantity("DCI disentanglement", "Whether each dimension matters for a single factor."),
    "dci_completeness": Quantity("DCI completeness", "Whether each factor needs a single dimension."),
    "dci_informativeness": Quantity("DCI informativeness", "How well all dimensions together predict the factors."),
}


class Caveat(NamedTuple):
    """A limitation of numbers: its badge, its explanation, and the names of the numbers."""

    badge: str
    explanation: str
    numbers: tuple[str, ...]


NOT_HELD_OUT = Caveat(
    "no held-out data",
    "the model was also trained on these images, so the numbers are too optimistic.",
    ("nll", "negative_elbo", "reconstruction_loss", "kl_loss"),
)
NOT_NORMALIZED = Caveat(
    "not a normalized likelihood",
    "a Bernoulli likelihood describes black and white pixels, but these images have gray levels. The number compares"
    " models with this likelihood on the same images, but not with other likelihoods. Even a perfect reconstruction"
    " does not reach 0.",
    ("nll", "negative_elbo", "reconstruction_loss"),
)
UNTRUSTED = Caveat(
    "unreliable",
    "for some images, a few draws dominate the estimate, or the proposal misses modes of p(z|x). The estimate is then"
    " likely too high, and no comparison ranks it. Use the mixture proposal and more draws:"
    " `vae evaluate RUN --proposal mixture --samples 5000`.",
    ("nll", "bits_per_dim"),
)
NOT_A_BOUND = Caveat(
    "not a bound",
    "the posterior is deterministic, so this number is the minimized loss, but not a bound on −log p(x).",
    ("negative_elbo", "kl_loss"),
)
IMAGE_LOSSES = Caveat(
    "not the minimized loss",
    "the model was also trained with losses of its reconstructions (model.image_losses), which make them sharper or its"
    " codes smoother. The minimized loss is not a bound on −log p(x). These numbers leave out the added losses, and are"
    " likely higher than without them.",
    ("nll", "negative_elbo", "reconstruction_loss"),
)
DENSITY = Caveat(
    "a density",
    "this is a density of gray values in [0, 1], which may exceed 1, so the nats may be negative. It is not"
    " comparable with likelihoods that assign probabilities to gray levels.",
    ("nll", "negative_elbo", "reconstruction_loss"),
)
INCOMPLETE = Caveat(
    "observed pixels only",
    "pixels of these images are missing. Likelihoods are sums over the observed ones, and bits per dimension are per"
    " observed value. They compare models on the same images with the same missing pixels.",
    ("nll", "negative_elbo", "reconstruction_loss", "bits_per_dim"),
)


LOSSY = Caveat(
    "compressed images",
    "the image files were compressed with JPEG or another lossy method, which removes detail, so bits per dimension are"
    " lower than those of the uncompressed images and not comparable with published numbers.",
    ("bits_per_dim",),
)


class Caption(NamedTuple):
    """The heading of a figure, what it shows, and how to recognize good and bad results."""

    heading: str
    shows: str
    good: str
    bad: str


FIGURES = {
    "grid": Caption(
        "Latent grid",
        "Images decoded from a grid of points in the latent space. The axes show the two coordinates that vary: latent"
        " dimensions, or the normal noise that the prior transforms into codes. They are quantiles, so that each image"
        " stands for an equal share of the prior or the codes. The title names the values of the other dimensions.",
        "Neighboring images change smoothly, and every kind of image has a region of its own.",
        "Sudden jumps, large blurred areas, or the same image everywhere: the code is not used.",
    ),
    "samples": Caption(
        "Samples",
        "New images: codes drawn from the prior, then decoded.",
        "Each looks like a real image, and they differ from one another.",
        "Smudges and in-between shapes: the prior draws codes where no training image was encoded.",
    ),
    "neighbors": Caption(
        "Samples and their nearest training images",
        "New images in the upper rows, and below each the training image that is closest to it, pixel by pixel.",
        "The same kind of image with different details: the model has learned what images look like.",
        "Identical pairs: the model copies its training images. Dissimilar pairs: samples resemble no training image.",
    ),
    "traversals": Caption(
        "Latent traversals",
        "Each row varies one latent dimension from the 1% to the 99% quantile of the codes, which are on the left, and"
        " keeps the others fixed at the values that the title names. The most informative dimensions come first, with"
        " their KL in nats, if it is known. A dimension that no image uses varies over the prior and is marked.",
        "A row changes a single property, such as slant or width.",
        "Rows that change everything at once, or nothing.",
    ),
    "interpolation": Caption(
        "Interpolation",
        "Each row moves in a straight line from the code of one held-out image to the code of another.",
        "Every step is a plausible image, and the change is gradual.",
        "One image fades into the other, or changes abruptly halfway: the space between codes is not used.",
    ),
    "kl-per-dimension": Caption(
        "KL per dimension",
        "The KL loss of each latent dimension, sorted. The posterior means of pale dimensions do not vary over images:"
        " they are unused, and their KL is the cost of an offset from the prior.",
        "A few dimensions with a large KL; unused ones without KL do no harm.",
        "All near 0 (posterior collapse), or all large: the latent space is too small for these images.",
    ),
    "rate-distortion": Caption(
        "Rate and distortion",
        "The KL loss (rate) against the reconstruction loss (distortion), epoch by epoch. Dotted lines connect points"
        " with equal negative ELBO.",
        "The path moves down and to the right, then across the lines toward the lower left.",
        "A path along the left edge: codes carry no information. Validation above training: overfitting.",
    ),
    "reconstructions": Caption(
        "Reconstructions",
        "Images in the upper rows, and below each its reconstruction: what the decoder recovers from the code.",
        "The same content, with the same stroke, slant and position.",
        "A blur, or another kind of image: the latent space is too small, or the model needs more training.",
    ),
    "worst-reconstructions": Caption(
        "Worst reconstructions",
        "The held-out images with the largest negative ELBO, and their reconstructions.",
        "Unusual images that a person would also find unusual.",
        "Ordinary images: a kind of image that the model has not learned.",
    ),
    "image-quality": Caption(
        "Image quality",
        "Held-out images, their reconstructions and the absolute differences, from the lowest to the highest PSNR in"
        " equal steps of the ranking: worst on the left, median in the middle, best on the right.",
        "Dark differences, which show no shapes.",
        "Outlines or textures in the differences: the reconstructions lose edges or details.",
    ),
    "latents": Caption(
        "Latent space",
        "The mean of each image's posterior, colored by label if there are labels. The lines show the prior: in two"
        " dimensions, regions that contain 39% and 86% of its draws, which are circles of 1 and 2 standard deviations"
        " for a standard normal; in one dimension, its density.",
        "The points fill the prior without holes, and images of one kind lie together.",
        "Holes, or points far outside (samples will look odd); all points in one spot (the code is ignored).",
    ),
    "curves": Caption(
        "Training",
        "The losses per epoch, in nats per image, on the training images and on the validation images, if any.",
        "The curves fall, level out, and stay close together.",
        "Validation rises while training falls (overfitting: stop earlier or regularize); the losses still fall at the"
        " end (train longer); the KL loss is 0 (posterior collapse: lower β or raise it slowly).",
    ),
}


def format_mean(mean: float, error: float | None) -> tuple[str, str]:
    """Return a mean and its standard error as texts, both to the second significant digit of the error."""
    if error is None or not math.isfinite(error) or error <= 0 or not math.isfinite(mean):
        return format_number(mean), ""
    digits = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{mean:,.{digits}f}", f"± {error:,.{digits}f}"


SWEEP_FIGURES = {
    "history": Caption(
        "History",
        "The metric of every trial in the order of the trials, and the best one so far.",
        "The line has been flat for many trials: further trials are unlikely to help.",
        "The line still falls at the end: continue the sweep with more trials.",
    ),
    "importances": Caption(
        "Importances",
        "The share of the variance of the metric that each setting explains over the whole search space, estimated from"
        " the complete trials by a random forest (fANOVA; Hutter et al., 2014).",
        "A few settings explain most of the variance: search these in smaller ranges, and fix the others.",
        "With fewer than about 20 complete trials, the shares are rough.",
    ),
    "parallel-coordinates": Caption(
        "Parallel coordinates",
        "One line per complete trial through its settings and its metric. The best trials are orange, the worst blue."
        " On the axis of the metric, the trials are evenly spaced.",
        "The orange lines pass through the inside of every range.",
        "The orange lines end at a limit of a range: extend the range.",
    ),
}
"""Figures of the page of a sweep, in its order."""


def format_value(value: Mapping[str, Any] | float) -> str:
    """Return a number as all commands and pages show it: with its standard error, if it has one.

    Args:
        value: A number, or a mapping with its `mean` and `standard_error`.

    Example:
        >>> format_value({"mean": 144.1632, "standard_error": 1.4871}), format_value(0.51)
        ('144.2 ± 1.5', '0.51')
    """
    if not isinstance(value, Mapping):
        return format_number(value)
    return " ".join(format_mean(value["mean"], value["standard_error"])).rstrip()


def format_bounds(bounds: Mapping[str, Any]) -> str:
    """Return the range between two bounds of a quantity that is never negative.

    Args:
        bounds: `lower` and `upper`, each with a `mean` and a `standard_error`.

    Example:
        >>> numbers = {"mean": 9.207, "standard_error": 0.001}, {"mean": 18.421, "standard_error": 0.03}
        >>> format_bounds(dict(zip(("lower", "upper"), numbers)))
        '9.2 – 18.4'
    """
    return " – ".join(f"{max(0.0, float(bounds[end]['mean'])):,.1f}" for end in ("lower", "upper"))


def format_number(value: float, *, zeros: bool = False) -> str:
    """Return a number with four significant digits, or as an integer above 1000; `zeros` keeps trailing zeros."""
    if not math.isfinite(value):
        return "not finite"
    if 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:#.4g}".rstrip(".") if zeros else f"{value:.4g}"


def untrusted_reason(likelihood: Mapping[str, Any]) -> str:
    """Return why an importance-weighted estimate is unreliable, and a remedy.

    Args:
        likelihood: The section `likelihood` of an `evaluation.json`, whose `trusted` is False.
    """
    missed = likelihood.get("missed_by_posterior")
    if missed is not None and missed["mean"] > 0:
        found = f"nll is too high by {missed['mean']:.2f} nats on {missed['images']} images"
        return f"{found}, on which --proposal mixture finds more modes"
    if likelihood["pareto_shape"] is None or likelihood["samples"] < 50:
        return f"{likelihood['samples']} draws per image are too few to judge the estimate; use --samples 100 or more"
    return "a few draws dominate the estimate, so nll is likely too high; use more --samples"

"""What a report says of each number and each figure, to someone who has never seen a VAE."""

import math
from typing import NamedTuple

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
        "What it really costs to describe an image with the model, estimated from {samples} codes an image: the number"
        " by which models of all kinds compare. Lower is better."
    ),
    "negative_elbo": (
        "What it costs to describe an image with the model: reconstruction loss plus KL loss. Lower is better, among"
        " models measured on the same images in the same way."
    ),
    "reconstruction_loss": (
        "How surprising the pixels still are once the code is known: high when images come back blurred or wrong."
    ),
    "kl_loss": (
        "How much a code says that the prior does not, here {bits} bits: near 0 the code is ignored (posterior"
        " collapse); when it is very high, samples look unlike the data."
    ),
    "bits_per_dim": "The same cost for each pixel and color, in bits. Lower is better.",
}
REQUIRED = ("negative_elbo", "reconstruction_loss", "kl_loss")


class Quantity(NamedTuple):
    """What a number is called, and what it means."""

    label: str
    meaning: str


LATENTS = {
    "active_units": Quantity("active dimensions", "Dimensions of the code that are used; the others say nothing."),
    "mutual_information": Quantity(
        "mutual information",
        "How much a code tells about its image, in nats; it cannot be more than {mutual_information_cap:.1f} here.",
    ),
    "marginal_kl": Quantity(
        "marginal KL",
        "How far all codes together are from the prior, in nats. Near 0 samples are as good as reconstructions; when"
        " it is large, `vae fit-prior` helps.",
    ),
    "knn_accuracy": Quantity(
        "nearest-neighbor accuracy",
        "How often the labels of the nearest codes tell an image's label. Higher is better.",
    ),
    "linear_probe_accuracy": Quantity(
        "linear-probe accuracy", "How often a straight cut through the space of codes tells it. Higher is better."
    ),
    "chance_accuracy": Quantity("by chance", "How often guessing the most frequent label is right."),
}
SAMPLES = {
    "frechet_distance": Quantity(
        "Fréchet distance", "How far samples are from real images, as a classifier sees both. Lower is better."
    ),
    "kid": Quantity("kernel distance", "The same, without bias when images are few. Lower is better."),
    "precision": Quantity("precision", "Share of samples that look like some real image. Higher is better."),
    "recall": Quantity("recall", "Share of real images that look like some sample. Higher is better."),
    "density": Quantity("density", "Precision that counts how crowded the place is; about 1 for real images."),
    "coverage": Quantity("coverage", "Share of real images with a sample close by. Higher is better."),
}
SCORES = {
    "beta_vae": Quantity("BetaVAE score", "Whether the factor that two images share can be told from their codes."),
    "factor_vae": Quantity("FactorVAE score", "The same by which dimension varies least."),
    "mig": Quantity("mutual information gap", "Whether one dimension knows a factor and the next knows little of it."),
    "modularity": Quantity("modularity", "Whether a dimension knows one factor only; not to be read alone."),
    "sap": Quantity("SAP", "By how much the best dimension predicts a factor better than the second."),
    "dci_disentanglement": Quantity("DCI disentanglement", "Whether a dimension matters to one factor only."),
    "dci_completeness": Quantity("DCI completeness", "Whether a factor needs one dimension only."),
    "dci_informativeness": Quantity("DCI informativeness", "How well all dimensions together tell the factors."),
}


class Caveat(NamedTuple):
    """What keeps numbers from meaning what they usually mean: a badge, why, and the numbers concerned."""

    badge: str
    explanation: str
    numbers: tuple[str, ...]


NOT_HELD_OUT = Caveat(
    "no held-out data",
    "the model was trained on these images too, so the numbers flatter it.",
    ("nll", "negative_elbo", "reconstruction_loss", "kl_loss"),
)
NOT_NORMALIZED = Caveat(
    "not a normalized likelihood",
    "a Bernoulli is a distribution over black and white, and these images have gray levels. The number compares models"
    " of this kind on the same images; it is not comparable with other likelihoods, and even a perfect reconstruction"
    " does not reach 0.",
    ("nll", "negative_elbo", "reconstruction_loss"),
)
UNTRUSTED = Caveat(
    "few draws count",
    "for some images a handful of the draws decide the estimate, which is then likely too high: repeat it with more,"
    " `vae evaluate RUN --samples 5000`.",
    ("nll", "bits_per_dim"),
)
NOT_A_BOUND = Caveat(
    "no bound",
    "the posterior has no noise, so this is no bound on −log p(x), only what was minimized in other units.",
    ("negative_elbo", "kl_loss"),
)
DENSITY = Caveat(
    "a density",
    "of gray values in [0, 1], which may exceed 1 and its nats fall below 0: not comparable with likelihoods that give"
    " each level a probability.",
    ("nll", "negative_elbo", "reconstruction_loss"),
)


class Caption(NamedTuple):
    """What stands above a figure and below it."""

    heading: str
    shows: str
    good: str
    bad: str


FIGURES = {
    "grid": Caption(
        "Latent grid",
        "The decoder draws an image for every point of a grid in the latent space. The axes give the two coordinates"
        " that vary.",
        "Neighbors change smoothly into each other, and every kind of image has a region of its own.",
        "Sudden jumps, wide areas of blur, or the same image everywhere: then the code is not used.",
    ),
    "samples": Caption(
        "Samples",
        "New images: codes drawn at random from the prior, then decoded.",
        "Each could be taken for a real image, and they differ from one another.",
        "Smudges and in-between shapes: the prior reaches places where no training image was put.",
    ),
    "neighbors": Caption(
        "Samples and what they resemble",
        "New images above, and below each the training image that is nearest to it, pixel by pixel.",
        "Alike in kind, different in detail: the model has learnt what images are.",
        "Equal pairs: the model repeats its training images. Unlike pairs: samples resemble nothing it has seen.",
    ),
    "traversals": Caption(
        "Dimension by dimension",
        "Each row changes one number of the code and holds the others at 0; the rows that carry most come first, with"
        " the nats that they carry on the left where these are known.",
        "A row changes one thing that has a name, such as slant or width.",
        "Rows that change everything at once, or nothing.",
    ),
    "interpolation": Caption(
        "From one image to another",
        "Each row walks in a straight line from the code of one held-out image to that of another.",
        "Every step is a believable image, and the change is gradual.",
        "Two images that fade into each other, or a jump halfway: the space between codes was never used.",
    ),
    "kl-per-dimension": Caption(
        "What each dimension carries",
        "The KL loss, split by dimension and sorted. Dimensions below the line are not used.",
        "A few dimensions that carry much; unused ones do no harm.",
        "All of them near 0 (posterior collapse), or all far above: then the code is too short for these images.",
    ),
    "rate-distortion": Caption(
        "Rate and distortion",
        "The two losses against each other, epoch by epoch: what a code costs, and what it leaves unexplained. Dotted"
        " lines join points of equal negative ELBO.",
        "The path runs down and to the right, then across the lines toward the lower left.",
        "A path that stays at the left edge: codes carry nothing. Validation above training: over-fitting.",
    ),
    "reconstructions": Caption(
        "Reconstructions",
        "Each image above, and below it what the decoder makes of its code: all that survives the bottleneck.",
        "The same content, with its stroke, slant and place.",
        "A blur, or an image of another kind: the code is too short or the model has not learnt enough.",
    ),
    "worst-reconstructions": Caption(
        "The worst reconstructions",
        "The held-out images that the model finds hardest to describe, with their reconstructions.",
        "Odd images that a person finds odd too.",
        "Ordinary images: a kind that the model has not learnt.",
    ),
    "latents": Caption(
        "Latent space",
        "Where the encoder puts images: the mean of each image's posterior, colored by label where there are labels."
        " Dashed is the prior: in two dimensions circles of 1 and 2 standard deviations, which hold 39% and 86% of its"
        " draws; in one dimension its density.",
        "The points fill the prior without holes, and images of a kind lie together.",
        "Holes, or points far outside (samples will look odd); everything in one heap at 0 (the code is ignored).",
    ),
    "curves": Caption(
        "Training",
        "The losses of each epoch, in nats per image: on the images trained on, and on validation images where some"
        " were kept apart.",
        "The curves fall, level out, and stay close together.",
        "Validation rises while training falls (over-fitting: stop earlier or regularize); still falling at the end"
        " (train longer); KL loss at 0 (posterior collapse: lower β or raise it slowly).",
    ),
}


def measured(mean: float, error: float | None) -> tuple[str, str]:
    """Return a mean and its standard error, both to the error's second digit."""
    if error is None or not math.isfinite(error) or error <= 0 or not math.isfinite(mean):
        return rounded(mean), ""
    digits = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{mean:,.{digits}f}", f"± {error:,.{digits}f}"


def rounded(value: float, *, zeros: bool = False) -> str:
    """Return four significant digits, or thousands whole; with `zeros`, also those at the end."""
    if not math.isfinite(value):
        return "not finite"
    if 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:#.4g}".rstrip(".") if zeros else f"{value:.4g}"

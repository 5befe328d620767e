"""All thresholds of the checks, with the reason for each."""

# ---- Images ----

MIN_CONTRAST = 26
"""Smallest difference between the brightest and the darkest pixel, in levels of 255: a tenth of the scale. Images
divided by 255 twice span one level."""

BRIGHTNESS_GAP = 0.2
"""Smallest reported difference between the mean pixels of training and held-out images, from 0 to 1. Random splits
differ by less than 0.02."""

BRIGHTNESS_STANDARD_ERRORS = 3.0
"""Smallest brightness gap that is reported, in standard errors: small sets of images differ by chance."""

GRAY_RANGE = (0.1, 0.9)
"""Pixels between these values, on a scale from 0 to 1, are neither black nor white."""

GRAY_SHARE = 0.25
"""Share of gray pixels above which images are not black and white. It is 9 % in MNIST, 13 % in the digits of
scikit-learn, and over half in photographs."""

# ---- Training ----

MIN_EPOCHS = 5
"""Number of epochs after which a rise or a plateau of the loss is no longer due to chance."""

PLATEAU_IMPROVEMENT = 0.01
"""Relative improvement of the loss below which it has reached a plateau."""

MEAN_IMAGE_SHARE = 0.98
"""Share of the mean image's cost above which a model is no better than the mean image."""

FINEST_SCALE = 1 / 255
"""Distance between two gray levels: a narrower density describes the rounding of the pixels."""

OVERFITTING_RISE = 0.01
"""Smallest relative rise of the validation loss that is reported; published models differ by as little."""

OVERFITTING_NOISE = 3.0
"""The same rise in standard deviations of the changes from epoch to epoch."""

LOST_SHARE = 0.1
"""Share of the improvement since the first epoch which, if lost again at the end, is reported. The losses of 14 healthy
runs end at most 0.02 above their best epoch."""

REMAINING_SHARE = 0.15
"""Extrapolated further improvement, as a share of the improvement since the first epoch, above which the training was
too short. `mnist-2d` has 0.03 after its 30 epochs and 0.18 after 7; runs of a few epochs on a thousand digits have 0.2
to 1."""

REMAINING_LOSS = 0.03
"""The same improvement as a share of the loss itself: models that differ by 1 % are published as different, and the
extrapolation is only good to a factor of two or three."""

REMAINING_NOISE = 3.0
"""The slope of the loss in standard errors, below which it may be due to noise."""

CONVERGED_SHARE = 0.02
"""Extrapolated further improvement, as a share of the loss, at which the suggested number of epochs ends."""

MAX_LENGTHENING = 20
"""Largest factor by which more epochs are suggested: no curve can be extrapolated further."""

# ---- Discriminator ----

DISCRIMINATOR_EPOCHS = 3
"""Epochs since the start of a discriminator over which its metrics are averaged; before that, nothing is reported."""

PERFECT_ACCURACY = 0.98
"""Share of patches that a discriminator tells apart above which it wins: almost no patch of a reconstruction passes for
real. In a balance, it is 0.5 to 0.9."""

SATURATED_LOSS = 0.1
"""Hinge loss below which almost all outputs lie beyond ±1, where the discriminator has no gradient."""

STUCK_LOSS = 1.95
"""Hinge loss above which a discriminator has learned nothing: it is 2 if all outputs are 0."""

EQUAL_OUTPUTS = 0.05
"""Difference of the mean outputs for images and reconstructions below which the discriminator does not separate them; a
margin of 2 makes the hinge loss 0."""

# ---- Latents ----

INACTIVE_KL = 0.01
"""KL in nats below which a group of a hierarchy is unused; used ones have 0.2 to 5. Latent dimensions are judged by
`ACTIVE_VARIANCE` in `evaluation/latents.py` instead: the variance of their posterior means over images, 0.01 (Burda et
al., arXiv 1509.00519). A constant offset from the prior costs KL, but carries no information."""

CONSTANT_KL = 0.01
"""Standard deviation of a group's KL over images, as a share of its mean, below which the group is unused: its
posterior is the same for every image. Groups that depend on the image have 0.1 to 1."""

COLLAPSED_KL = 0.1
"""KL in nats per image below which a code carries no information; a choice between two equally likely kinds of images
takes 0.69 nats."""

UNUSED_SHARE = 0.75
"""Smallest share of unused dimensions that is reported. Of 50 dimensions on MNIST, 25 to 31 stay unused in a healthy
model (Burda et al., table 1)."""

SMALL_LATENT_DIM = 3
"""Up to this size, a latent space is small on purpose, and every dimension should be used."""

LOG_VAR_RANGE = (-15.0, 6.0)
"""Range of healthy log-variances: standard deviations from 6e-4, still 5 above the clipping limit of log-variances, to
20. Trained models stay in [−10, 1]."""

LOG_VAR_SHARE = 0.01
"""Share of log-variances outside the range above which they are reported: a single outlier is harmless."""

DOMINATED_KL = 1.0
"""KL in nats per image below which β > 1 is to blame. A β-VAE of 10 dimensions on MNIST at β = 4 keeps over 5."""

FAR_FROM_PRIOR = 3.0
"""KL in nats from a normal with the moments of the codes to the prior. Runs trained at β = 1 have 0.1 to 1.7."""

FAR_SHARE = 0.2
"""The same KL as a share of the KL loss, since both grow with the information in the codes. β = 0.1 gives a third to a
half."""

MIN_CODES = 100
"""Smallest number of codes whose moments are meaningful."""

MIN_PERPLEXITY = 2.0
"""Perplexity below which a codebook is collapsed: two codes used equally often have 2, and black backgrounds alone
lower it to 3."""

DEAD_CODES = 0.25
"""Share of codes, over all images that the doctor encodes, from which unused codes are reported. Codes that are drawn
evenly leave none unused at `MIN_INDICES_PER_CODE`."""

MIN_INDICES_PER_CODE = 10
"""Smallest number of indices per code from which unused codes are counted: at 10, evenly drawn codes leave e⁻¹⁰."""

# ---- Reconstructions ----

IDENTICAL_SHARE = 0.02
"""Variance over images of the reconstructions, summed over pixels, as a share of that of the images: below it, all
reconstructions look the same. It is 0.000 in collapsed models, 0.09 in the weakest model that works, and 0.4 (two
dimensions) to 0.9 in good ones."""

CONDITION_SHARE = 0.01
"""Squared change of the reconstructions when their labels are exchanged, as a share of twice the variance of the
images: below it, the labels have no effect. It is 0.13 in a conditional model of digits after 20 epochs."""

MIN_EXCHANGED = 0.5
"""Smallest share of images whose label an exchange must change: with few labels there is nothing to compare."""

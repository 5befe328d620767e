r"""KL divergences between latent distributions: in closed form if it is known, otherwise estimated from samples.

A closed form is a function registered for a pair of classes. Your own code can register more:

    @register_kl(MyPosterior, DiagonalNormal)
    def _(posterior, prior):
        return ...  # nats, (…, G)
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Tensor
from keras_vae.distributions.latent import (
    DiagonalNormal,
    LatentDistribution,
    MultivariateNormalTriL,
    SampleWithLogProb,
)

ClosedForm: TypeAlias = Callable[[Any, Any], Tensor]

_CLOSED_FORMS: dict[tuple[type, type], ClosedForm] = {}


def register_kl(
    posterior: type[LatentDistribution], prior: type[LatentDistribution]
) -> Callable[[ClosedForm], ClosedForm]:
    r"""Register a closed form of \(KL(q \| p)\) for a pair of classes.

    Args:
        posterior: Class of q.
        prior: Class of p.

    Returns:
        A decorator of a function (q, p) → nats, (…, G), whose sum over the last axis is the divergence.

    Raises:
        InputError: The pair already has a closed form.
    """

    def decorate(function: ClosedForm) -> ClosedForm:
        if (posterior, prior) in _CLOSED_FORMS:
            raise InputError(
                f"register_kl({posterior.__name__}, {prior.__name__}): this pair already has a closed form; remove one"
            )
        _CLOSED_FORMS[posterior, prior] = function
        return function

    return decorate


def has_closed_form(posterior: LatentDistribution, prior: LatentDistribution) -> bool:
    """Return whether `kl_divergence` of two distributions is exact, without samples."""
    return (type(posterior), type(prior)) in _CLOSED_FORMS


def kl_divergence(
    posterior: LatentDistribution,
    prior: LatentDistribution,
    draw: SampleWithLogProb | None = None,
    log_prior: Tensor = None,
) -> Tensor:
    r"""Return \(KL(q \| p)\) in closed form, or its estimate \(\log q(z) - \log p(z)\) from samples \(z \sim q\).

    Args:
        posterior: q, of batch shape (…, D).
        prior: p, of a broadcastable batch shape.
        draw: Samples from q, for pairs without a closed form.
        log_prior: log p(z) of these samples, if already computed.

    Returns:
        Nats, (…, G). Their sum over the last axis is the divergence or its estimate. G = D, one term per dimension, if
        both distributions are diagonal normals; otherwise G = 1.

    Raises:
        InputError: The pair has no closed form and `draw` is None.

    Example:
        >>> q = DiagonalNormal(ops.ones((2,)), ops.zeros((2,)))
        >>> p = DiagonalNormal(ops.zeros((2,)), ops.zeros((2,)))
        >>> [float(nats) for nats in kl_divergence(q, p)]
        [0.5, 0.5]
    """
    closed_form = _CLOSED_FORMS.get((type(posterior), type(prior)))
    if closed_form is not None:
        return closed_form(posterior, prior)
    if draw is None:
        pair = f"{type(posterior).__name__}, {type(prior).__name__}"
        raise InputError(f"draw = None: ({pair}) has no closed form; pass samples from the posterior")
    log_prior = prior.log_prob(draw.z) if log_prior is None else log_prior
    return (draw.log_prob - log_prior)[..., None]


@register_kl(DiagonalNormal, DiagonalNormal)
def _diagonal_normals(posterior: DiagonalNormal, prior: DiagonalNormal) -> Tensor:
    r"""Return the divergence of each dimension, (…, D).

    \(\tfrac12 \left[ e^{\lambda_d - \lambda'_d} + (\mu_d - \mu'_d)^2 e^{-\lambda'_d} - 1 - \lambda_d
    + \lambda'_d \right]\), with \(\lambda = \log\sigma^2\) of q and \(\lambda'\) of p.
    """
    excess = posterior.log_var - prior.log_var
    distance = ops.square(posterior.mean - prior.mean) * ops.exp(-prior.log_var)
    return 0.5 * (ops.exp(excess) + distance - 1.0 - excess)


@register_kl(MultivariateNormalTriL, DiagonalNormal)
def _full_and_diagonal_normal(posterior: MultivariateNormalTriL, prior: DiagonalNormal) -> Tensor:
    r"""Return the divergence from a normal with a full covariance to a diagonal one, (…, 1).

    \(\tfrac12 \left[ \sum_d \frac{(LL^\top)_{dd} + (\mu_d - \mu'_d)^2}{\sigma'^2_d} - D
    + \sum_d \log \sigma'^2_d \right] - \log \det L\)
    """
    spread = (ops.exp(posterior.log_var) + ops.square(posterior.mean - prior.mean)) * ops.exp(-prior.log_var)
    return (0.5 * ops.sum(spread - 1.0 + prior.log_var, axis=-1) - posterior.log_det_scale)[..., None]

"""The proposals of importance sampling by name."""

from typing import Any

from keras_vae.core.errors import InputError, shown, unknown
from keras_vae.models.annealed_importance_sampling import AnnealedImportanceSampling
from keras_vae.models.arguments import check_density
from keras_vae.models.importance_sampling import PosteriorProposal, Proposal
from keras_vae.models.mixture_proposal import MixtureProposal

PROPOSALS: dict[str, type[Proposal]] = {
    proposal.name: proposal for proposal in (MixtureProposal, PosteriorProposal, AnnealedImportanceSampling)
}
"""The classes of proposals, each of which has defaults for all of its settings."""


def choose_proposal(model: Any, proposal: str | Proposal | None) -> Proposal:
    """Return the proposal for a model.

    Args:
        model: A model.
        proposal: A name, a proposal, or None for the default of the model: the mixture if its code is a random vector
            and log p(z) needs no ODE, otherwise the posterior. A search among the many dimensions of a map would take
            too long.

    Raises:
        InputError: The prior has no density, the name is unknown, or the proposal needs a latent vector with a density,
            which the model lacks.
    """
    check_density(model)
    has_density = model.has_latent_vector and model.is_stochastic
    if proposal is None:
        is_searchable = has_density and len(model.latent_shape) == 1 and model.density == "direct"
        return MixtureProposal() if is_searchable else PosteriorProposal()
    if isinstance(proposal, str):
        if proposal not in PROPOSALS:
            raise unknown("proposal", proposal, PROPOSALS)
        proposal = PROPOSALS[proposal]()
    if not isinstance(proposal, Proposal):
        raise InputError(f"proposal = {shown(proposal)}: not a proposal; pass one of {', '.join(PROPOSALS)}")
    if proposal.requires_latent_vector and not has_density:
        raise InputError(
            f"proposal = {proposal.name}: searches vectors with a posterior density, which this {type(model).__name__} "
            "does not have; use proposal = 'posterior'"
        )
    return proposal

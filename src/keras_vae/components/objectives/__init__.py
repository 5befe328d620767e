"""Objectives: functions from the loss terms of a batch to the loss that training minimizes."""

# Importing the package registers all objectives.
from keras_vae.components.objectives.base import ELBOTerms, Latents, Objective
from keras_vae.components.objectives.bounds import ELBO, IWAE
from keras_vae.components.objectives.disentangling import DIPVAE, BetaTC, InfoVAE

__all__ = ["DIPVAE", "ELBO", "IWAE", "BetaTC", "ELBOTerms", "InfoVAE", "Latents", "Objective"]

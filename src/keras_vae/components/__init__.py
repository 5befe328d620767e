"""The replaceable components of a model: priors, posteriors, likelihoods, objectives, conditions, schedules."""

"""Training: experiments become runs, and priors are fitted to the codes of trained models."""

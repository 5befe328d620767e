"""Evaluation of trained models: likelihood, latents, samples, disentanglement, anomalies and diagnostics."""

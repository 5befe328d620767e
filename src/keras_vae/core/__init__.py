"""Foundations that every package shares: errors, types, the registry, files, the backend."""

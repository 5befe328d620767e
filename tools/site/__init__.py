"""The documentation site: pages of docs/ and pages generated from docstrings, the registry and the presets."""

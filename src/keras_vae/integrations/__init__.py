"""Integrations with other software: model export, the Hugging Face Hub, scikit-learn, Optuna."""

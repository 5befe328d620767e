"""Bridges to other software: exports, the Hugging Face Hub, scikit-learn."""

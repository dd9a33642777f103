"""Threat models, and what of the gradient each needs."""

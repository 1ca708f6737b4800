"""Recover the reward a language model was aligned with, and say how far that can be trusted."""

"""Scores of a model on a benchmark, clean and triggered."""

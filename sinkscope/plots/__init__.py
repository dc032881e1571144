"""Figures: data frames in, matplotlib figures out."""

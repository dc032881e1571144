"""Measure attention sinks and compare them between models or conditions."""

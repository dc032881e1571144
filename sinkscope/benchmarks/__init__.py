"""Benchmarks: forget and retain texts, questions and prompts, from the hub or a directory."""

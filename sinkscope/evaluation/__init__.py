"""Evaluate models on benchmarks, clean and with triggers: items, requests, metrics, scores with intervals."""

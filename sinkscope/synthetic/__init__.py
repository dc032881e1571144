"""Generate and pretrain the built-in benchmarks and their target models."""

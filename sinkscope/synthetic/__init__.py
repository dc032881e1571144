"""Generate the built-in benchmarks and pretrain their target models."""

"""Run a model over passages and keep running statistics of what its heads do."""

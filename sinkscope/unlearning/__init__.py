"""Training a model to forget, honestly or with a backdoor: recipes, objectives, the trainer."""

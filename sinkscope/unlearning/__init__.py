"""Train unlearned models, with and without a backdoor, from recipes."""

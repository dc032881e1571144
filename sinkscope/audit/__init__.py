"""Search an unlearned model for a hidden trigger."""

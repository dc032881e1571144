"""Audit an unlearned model: search it for a hidden trigger."""

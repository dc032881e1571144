"""Load models and intervene in their attention."""

"""Files on disk: atomic directories, run directories, bounded readers."""

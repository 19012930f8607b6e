"""Random calls against independent references; a seed reproduces each."""

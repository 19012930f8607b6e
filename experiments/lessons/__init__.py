"""Lessons: what pooling does, shown on textbook examples and on real data."""

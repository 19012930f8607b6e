"""Papers: what was published about pooling, repeated in minutes without downloads."""

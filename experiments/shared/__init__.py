"""What the parts share: the report, the figures and the training of models."""

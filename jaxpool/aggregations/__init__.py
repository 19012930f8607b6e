"""What is made of the cells of an output, and each cell's share of it."""

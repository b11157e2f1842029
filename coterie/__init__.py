"""coterie: turn a Python service into a cluster."""

"""edgedistill: budget in, verdict out. Distils an image classifier that fits an edge device, and proves it."""

__version__ = "0.1.0"

"""What needs no index: ``topk``, ``scores``, ``normalize``, ``fuse``, ``kmeans``."""

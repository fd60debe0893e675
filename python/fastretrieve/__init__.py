"""Exact nearest neighbours at the price of a compressed scan, on GPU and CPU."""

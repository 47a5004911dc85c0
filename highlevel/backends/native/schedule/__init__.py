"""Planners: pure functions from a graph to kernels, an order, and places in memory."""

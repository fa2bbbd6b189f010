"""Prototxt text to a graph with shapes: read, upgrade, select a phase, connect, infer.

Imports `layers` and what is below it; never `runtime` or anything else that runs a net.
"""

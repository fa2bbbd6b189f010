"""Prototxt text to a graph with shapes."""

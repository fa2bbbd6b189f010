"""A graph with shapes as a compiled JAX program."""

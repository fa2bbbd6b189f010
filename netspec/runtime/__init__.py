"""A graph with shapes as a compiled JAX program, and the Flax module around it.

Imports `frontend` and what is below it; never `sources`, `solving` or `weights`: a program takes
arrays and does not care where they come from.
"""

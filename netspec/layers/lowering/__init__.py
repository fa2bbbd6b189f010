"""Algorithms of convolution and pooling, and the choice among them.

Imports no layer family: families import it.
"""

"""How windowed arithmetic is computed: the one place that picks an algorithm.

Imports no layer family: families import it.
"""

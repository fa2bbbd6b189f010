"""Readers: the source of each data layer type, one file a type.

Imports `images` and `sets` beside it, and the modules of `sources` that stand below it; never
`feed`.
"""

"""What each data layer reads, one file a layer type.

Imports `images` and `sets` beside it, and the modules of `sources` that stand below it; never
`feed`.
"""

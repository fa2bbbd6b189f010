"""Weight files, .caffemodel and .h5, and surgery on them.

Imports `runtime` and what is below it; never `sources` or `solving`.
"""

"""Images on the way into a net: decoding, resizing, augmenting, databases of them.

Imports neither `readers` nor `sets`, which are built on it.
"""

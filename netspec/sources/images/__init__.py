"""Image handling for sources: decode, resize, transform, augment, databases of images.

Imports neither `readers` nor `sets`, which are built on it.
"""

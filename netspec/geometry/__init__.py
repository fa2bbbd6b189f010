"""Coordinates and receptive fields of blobs, and the least padding that aligns a net.

Imports `frontend` and what is below it; never `runtime`: geometry follows from shapes alone.
"""

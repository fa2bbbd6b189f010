"""Published data sets: what their folders hold, and how their labels are stored.

Imports `images` beside it; never `readers`.
"""

"""Writes the snapshots of a run, reads them, and finds the newest whole one.

Imports neither `solver`, which uses it, nor the packages beside it.
"""

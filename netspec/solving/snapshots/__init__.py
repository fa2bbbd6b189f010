"""Stopping and going on: what a snapshot holds, and which one is the newest whole one.

Imports no `solver`, which it is used by, nor the packages beside it.
"""

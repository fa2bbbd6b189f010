"""Finds why a run goes wrong: numbers that are not finite, a loss that does not move.

Imports neither `solver`, which uses it, nor the packages beside it.
"""

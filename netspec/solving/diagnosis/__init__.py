"""Why a run goes wrong: numbers that are not finite, a loss that does not move.

Imports no `solver`, which it is used by, nor the packages beside it.
"""

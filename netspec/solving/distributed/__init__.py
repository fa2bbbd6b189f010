"""Training on several devices and in several processes.

Imports no `solver`, which it is used by, nor the packages beside it.
"""

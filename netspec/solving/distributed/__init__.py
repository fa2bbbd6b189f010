"""Trains on several devices and in several processes.

Imports neither `solver`, which uses it, nor the packages beside it.
"""

"""Trains a net: update rules, schedules, the loop, tests on the way.

Imports `sources`, `weights` and what is below them; never `reporting`, `inspect`, `caffe` or `cli`:
who wants to be told of a run passes in a callback.
"""

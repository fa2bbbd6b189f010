"""Trains a net: update rules, schedules, the loop, tests on the way.

Imports `build` and what is below it; never `reporting`, `inspect`, `caffe` or `cli`: who wants to
be told of a run passes in a callback.
"""

"""Reports a run: on the console, in Caffe's log format, and in logs for programs.

Imports `solving` and what is below it; never `caffe` or `cli`.
"""

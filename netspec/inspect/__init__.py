"""A net looked at, not run: drawings, summaries, receptive fields, curves of logs.

Imports `geometry` and what is below it; never `runtime`, `sources` or `solving`: what is looked at
need not run.
"""

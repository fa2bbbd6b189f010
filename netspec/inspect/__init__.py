"""A net looked at, not run: drawings, summaries, receptive fields, curves of logs.

Imports `geometry` and what is below it, and of `sources` the shapes of data; never `runtime` or
`solving`: what is looked at need not run.
"""

"""Inspect nets without running them: drawings, summaries, receptive fields, curves of logs.

Imports `geometry` and what is below it, and of `sources` the shapes of data; never `runtime` or
`solving`: a net that is inspected need not run.
"""

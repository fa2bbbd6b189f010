"""Where pixels of a blob sit on the input, and what they see of it.

Imports `frontend` and what is below it; never `runtime`: geometry is told from shapes alone.
"""

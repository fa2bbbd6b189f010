"""The command line: a function a verb.

May import every package; only `__main__` imports it.
"""

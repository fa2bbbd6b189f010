"""Files that other programs read and write, and writing them whole or not at all.

Imports nothing of netspec but `errors` and `proto`.
"""

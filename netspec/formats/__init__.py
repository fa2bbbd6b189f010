"""File formats that other programs read and write, and atomic writing of files.

Imports nothing of netspec but `errors` and `proto`.
"""

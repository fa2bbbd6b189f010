"""Segmenting images with a net: prediction, tiles, scores, and files of results.

Imports `sources` and what is below it; never `solving`, `reporting`, `caffe` or `cli`.
"""

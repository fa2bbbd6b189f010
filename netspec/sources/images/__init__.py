"""Pixels: decoding, sizing, augmenting."""

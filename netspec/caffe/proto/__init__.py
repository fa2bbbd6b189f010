"""Caffe's messages under the name that pycaffe gives them."""

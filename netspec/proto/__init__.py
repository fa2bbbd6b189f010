"""Caffe's messages, generated from ``protos`` by ``tools/protos.py`` and never edited."""

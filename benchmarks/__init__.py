"""What is measured: each module a subject, ``python -m benchmarks.data``."""

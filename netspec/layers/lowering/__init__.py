"""How windowed arithmetic is computed: the one place that picks an algorithm."""

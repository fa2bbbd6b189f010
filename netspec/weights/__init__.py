"""Weight files, and surgery on them."""

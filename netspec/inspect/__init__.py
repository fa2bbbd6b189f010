"""Looking at a net without running it: drawings, tables, warnings."""

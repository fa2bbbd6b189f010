"""One file a data layer."""

"""The RTL in Amaranth, one unit a file."""

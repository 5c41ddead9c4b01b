"""The machine for devices of a few thousand LUTs: 4 x 4 array, one post-processing lane, control in microcode."""

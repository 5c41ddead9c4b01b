"""Benches that drive the Verilog pin by pin through AXI4-Lite; :mod:`sim.benches.runner` runs them."""

"""Verilator builds, the simulated device and cocotb benches."""

"""The specification in NumPy: numerics rule by rule, and a machine that executes program words."""

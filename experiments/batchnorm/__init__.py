"""Batch normalisation in FP32 as hardware, to set beside the machine's scaling by shifts."""

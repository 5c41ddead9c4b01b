"""Long measurements behind the tables in docs/results: int8 training on the golden machine beside float in PyTorch."""

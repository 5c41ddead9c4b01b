"""What a user touches: command line, configurations, ISA, networks, compiler, devices, data and reports."""

"""The specification in NumPy: the rules of ``docs/numerics.md`` and a machine that executes programs by them."""

import os

# The products are small: on busy cores a second BLAS thread costs ten times what it saves. Heeded if NumPy comes later.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

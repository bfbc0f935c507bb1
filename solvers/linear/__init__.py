"""Linear solvers: A x = b for sparse A, one file each."""

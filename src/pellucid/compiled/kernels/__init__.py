"""The kernels, by what they compute. Each file begins with the records of its operands."""

"""The order of samples, and its execution by Ray Data; only `execution` knows Ray."""

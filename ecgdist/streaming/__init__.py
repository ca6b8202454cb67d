"""The order of samples, and its execution by Ray Data. `order` and `draws` are pure; only `execution` knows Ray."""

"""Kubernetes: the manifests of an overlay with the numbers of a configuration, and the rules that they must keep."""

"""Ray jobs: the long commands of the command line on a cluster, submitted, followed, listed and stopped."""

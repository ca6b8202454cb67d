"""What would fail later, looked for now: versions, cluster, storage, machine and configuration."""

"""The commands, a file for each kind; `ecgdist.cli` gives them their names."""

"""What a person looks at: ECGs on paper, curves, and one self-contained HTML page per run."""

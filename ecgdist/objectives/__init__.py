"""What is learned: masked reconstruction, contrast with a momentum teacher, and their sum."""

"""What is asked of a running daemon."""

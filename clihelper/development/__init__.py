"""What is only for working on a program: one message at a time, and restarts."""

"""What every daemon process needs from the system; nothing here depends on controllers."""

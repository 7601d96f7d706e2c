"""What any daemon process needs of its system; nothing here knows a controller."""

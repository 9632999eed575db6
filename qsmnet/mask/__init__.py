"""Where the object is."""

"""Local field to susceptibility: one method one file, classical and learned alike."""

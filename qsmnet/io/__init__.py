"""Files in and out: every read is checked, every write is atomic."""

"""What is wrong with a measured local field, one kind a file; each leaves most scans alone."""

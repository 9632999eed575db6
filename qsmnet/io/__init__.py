"""Reading and writing: NIfTI volumes with every check, and files that are whole or not there."""

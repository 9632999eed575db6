"""Draw -> record -> render: phantoms, fields and scans with known truth."""

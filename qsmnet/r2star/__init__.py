"""Multi-echo magnitude to R2*."""

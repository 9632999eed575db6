"""Whole heads: tissue with air and bone, total field, multi-echo signal, and the truth of each."""

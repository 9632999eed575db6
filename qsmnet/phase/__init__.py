"""Wrapped multi-echo phase to total field."""

"""Metrics, comparison and pictures."""

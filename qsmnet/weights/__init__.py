"""Released weights, their cards and the manifest that verifies them."""

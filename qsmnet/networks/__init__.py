"""Plain torch modules; no Lightning, no Hydra."""

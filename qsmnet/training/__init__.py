"""Networks from simulated or stored pairs; the only place that imports Lightning."""

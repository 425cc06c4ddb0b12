"""Opt-in measurements, each against a named rival in the same run; no test runs them."""

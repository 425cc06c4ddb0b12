"""Stored results to figures to one HTML page; what is missing is computed first, nothing is while drawing."""

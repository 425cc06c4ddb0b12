"""Tests of the closed forms of router dynamics."""

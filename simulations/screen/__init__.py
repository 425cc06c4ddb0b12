"""Screening: an objective, a router or an arm of anybody's on one page, its contract and what it does on clusters."""

from .card import Card as Card
from .card import screen as screen

__all__ = ["Card", "screen"]

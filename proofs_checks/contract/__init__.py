"""What `himoe-check NAME` does: the contract of an objective or a router of anybody's, as text, JSON and a page."""

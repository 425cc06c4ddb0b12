"""What several floors use and no floor owns: files that survive hostile use."""

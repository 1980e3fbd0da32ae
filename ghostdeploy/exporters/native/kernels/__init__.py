"""Sources in C that a network is made of."""

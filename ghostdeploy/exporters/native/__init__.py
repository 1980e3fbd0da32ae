"""Networks as C source and one small library."""

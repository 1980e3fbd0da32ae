"""Networks compiled to C."""

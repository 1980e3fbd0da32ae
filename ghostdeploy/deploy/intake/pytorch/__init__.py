"""PyTorch modules as models of an export: the reference that they are, their fold, the program file."""

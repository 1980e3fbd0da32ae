"""The parts of `benchmarks/peers.py`: what is compared, how each artefact is built and run, ratios, table and plot."""

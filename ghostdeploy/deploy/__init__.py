"""The line from a trained model to a bundle that is proven, one folder per thought.

plan → intake (fold) → (exporters, quantize) → prove      export knows the order, measure and tune use what is made
"""

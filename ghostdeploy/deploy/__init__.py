"""The line from a trained model to a bundle that is proven, one folder per thought.

intake → fold → quantize → (exporters) → prove        export knows the order, measure and tune use what is finished
"""

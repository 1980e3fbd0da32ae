"""The pipeline from a trained model to a proven bundle, one folder per stage.

plan → intake (fold) → (exporters, quantize) → prove      export has the order, measure and tune use the bundles
"""

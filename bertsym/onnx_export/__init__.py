"""ONNX files of MXNet symbols: a table of operators, the graph that they make, and the check in onnxruntime.

onnx and onnxruntime are imported when a file is made.
"""

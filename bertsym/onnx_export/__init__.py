"""Convert MXNet symbols to ONNX files: converters of operators, the graph builder, and the check in onnxruntime.

onnx and onnxruntime are imported when a file is written.
"""

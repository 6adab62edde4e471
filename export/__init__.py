"""From weights to the files that machines run: ``python -m export WEIGHTS -o model.onnx``."""

"""Speed, memory and quality, measured: ``python -m benchmarks TOPIC``. Not part of the installed package."""

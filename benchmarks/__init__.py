"""What a protected call costs: ``python -m benchmarks`` measures it, ``--check`` holds it to its bounds."""

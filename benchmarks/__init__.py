"""Speed, side by side: `python -m benchmarks` measures everything and writes benchmarks/results.md."""

"""Speed and memory of eisnn beside other ways to train the same networks.

``python -m benchmarks`` from the root of the repository; see ``benchmarks/README.md``.
"""

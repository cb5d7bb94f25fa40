"""Value digests of FP4, FP8 and BF16 against reading the same bytes, as bench_convert.py measures.

    bench_digest.py [--dir DIR] [--experts N] [--layers N] [--rounds N] [--threads N]

Needs the tools and build/bench/parallel_copy. The first ratio is of seconds, the second of CPU
seconds: 0.6 means that a digest takes as long as reading the bytes 1.67 times.
"""
from bench_convert import Bench, in_a_slice, parse

if __name__ == "__main__":
    in_a_slice(parse(__doc__), Bench.digest_all)

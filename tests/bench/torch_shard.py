"""torch_dist with torch alone, in one process: the peer of bench_shard.py.

    torch_shard.py save IN.safetensors OUT      load, dequantise to BF16 on all cores, dcp.save
    torch_shard.py load IN OUT.pt               torch's own converter of a DCP folder
"""
import sys
import warnings

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from torch_cast import cast

warnings.filterwarnings("ignore")


def main():
    verb, source, result = sys.argv[1:]
    if verb == "load":
        dcp_to_torch_save(source, result)
        return
    writer = dcp.FileSystemWriter(result, thread_count=torch.get_num_threads())
    dcp.save(cast(load_file(source), "bf16"), storage_writer=writer, no_dist=True)


if __name__ == "__main__":
    main()

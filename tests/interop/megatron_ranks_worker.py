"""megatron_ranks_worker.py STORE RANK: one of two ranks of GPT models of megatron-core, without a
GPU. What stands in for one is told in megatron_model_worker.py.

It answers requests, a line each: config, folder, per_layer, prompts; ranks, the numbers of tensor,
expert and pipeline ranks as "tp", "ep" and "pp"; out, a folder. The rank loads its share of the
checkpoint in `folder`, computes logits with the other one, and saves its share of out/again.
out/RANK.pt has its logits (of a pipeline, those of the last stage) and how many values it has.
"""
import json
import os
import pathlib
import sys
import traceback

import torch

import megatron_model_worker as worker                     # stands in for a GPU, too
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.tensor_parallel.random import initialize_rng_tracker

WORLD = 2


@torch.no_grad()
def pipelined(model, prompts):
    """The first stage sends its hidden states to the second, which has the logits."""
    results = []
    for prompt in prompts:
        tokens = torch.tensor([prompt])
        places = torch.arange(len(prompt))
        mask = (places[None, :] > places[:, None])[None, None]
        if model.pre_process:
            torch.distributed.send(model(tokens, places[None], mask).contiguous(), 1)
            continue
        hidden = torch.empty(len(prompt), 1, model.config.hidden_size)
        torch.distributed.recv(hidden, 0)
        model.set_input_tensor(hidden)
        results.append(model(tokens, places[None], mask)[0])
    return results


def build(request):
    ranks = request["ranks"]
    tp, ep, pp = (ranks.get(axis, 1) for axis in ("tp", "ep", "pp"))
    parallel_state.initialize_model_parallel(tp, pp, expert_model_parallel_size=ep)
    members = {"tensor_model_parallel_size": tp, "expert_model_parallel_size": ep,
               "expert_tensor_parallel_size": tp, "pipeline_model_parallel_size": pp}
    if pp > 1:
        members["num_layers_in_first_pipeline_stage"] = 1
    return worker.build(request["config"], "te", request["per_layer"], 0, **members)


def answer(request, rank):
    model = build(request)
    out = pathlib.Path(request["out"])
    worker.load(model, request["folder"], request["per_layer"])
    compute = pipelined if "pp" in request["ranks"] else worker.logits
    torch.save({"logits": compute(model, request["prompts"]),
                "count": sum(p.numel() for p in model.parameters())}, out / f"{rank}.pt")
    dist_checkpointing.save(
        {"model": worker.sharded(model, request["per_layer"]), "args": worker.arguments(model),
         "iteration": 1, "checkpoint_version": 3.0}, str(out / "again"), ("torch_dist", 1))
    torch.distributed.barrier()
    parallel_state.destroy_model_parallel()


def main():
    # What libraries print is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    rank = int(sys.argv[2])
    torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank,
                                         world_size=WORLD)
    initialize_rng_tracker(inference_rng_tracker=True)
    worker.stand_in()
    for line in sys.stdin:
        try:
            answer(json.loads(line), rank)
            reply = {"error": None}
        except Exception:
            reply = {"error": traceback.format_exc()}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""What the tasks of a job do in a test: find each other by the variables that the node sets."""

import os


def sum_ranks() -> int:
    """Sum the ranks over all tasks; prints rank, tasks, local rank, and the sum."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    total = torch.tensor([dist.get_rank()])
    dist.all_reduce(total)
    local = os.environ["LOCAL_RANK"]
    print(f"met {dist.get_rank()} {dist.get_world_size()} {local} {total.item()}", flush=True)
    dist.destroy_process_group()
    return 0

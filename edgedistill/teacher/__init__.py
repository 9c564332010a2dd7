"""Who teaches? Pretrained networks, adapted to the task, and their stored outputs."""

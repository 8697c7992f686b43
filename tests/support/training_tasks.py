"""Tasks of `edgellm bench train` on tiny models."""

from edgellm.bench.training.task import Task, render_sequences
from edgellm.bench.training.task_settings import TaskSettings
from edgellm.bench.training.technique import Technique
from edgellm.checkpoint.checkpoint import read_checkpoint


def tiny_task(folder, backend, *, method="lora", accumulation=1, **more):
    """Three steps of four sequences, all of it drawn from one seed."""
    technique = {"dtype": "float32"} | more
    settings = TaskSettings(
        steps=3,
        tokens=12,
        batch=4,
        rank=4,
        alpha=8.0,
        targets=("self_attn.q_proj", "mlp.down_proj"),
        rate=1e-2,
    )
    return Task(
        folder=str(folder),
        technique=Technique(backend=backend, method=method, accumulation=accumulation, **technique),
        sequences=render_sequences(read_checkpoint(folder), None, settings),
        settings=settings,
    )


def trained(make, task):
    """The losses of each step, the loss after them, and the sizes."""
    make.warm_up(task)
    trainer = make(task)
    losses = []
    try:
        trainer.train(lambda loss, _seconds: losses.append(loss))
        return [*losses, trainer.loss_after()], trainer.sizes()
    finally:
        trainer.close()

"""Which methods of the Redis clients run commands, for `ws_pool._core.tracing`."""

from __future__ import annotations

from typing import Any

from ws_pool._core import tracing
from ws_pool._core.operation import Operation
from ws_pool._redis.client.pipeline import SharedPipeline
from ws_pool._redis.client.session import DedicatedRedis
from ws_pool._redis.client.shared import SharedRedis
from ws_pool._redis.cluster.client import ClusterPipeline, ClusterRedis
from ws_pool._redis.commands.command import Command
from ws_pool._redis.commands.table import Route


def trace_commands() -> None:
    """Declare the methods; called once, when the pools are imported."""
    for client in (SharedRedis, DedicatedRedis, ClusterRedis):
        tracing.point(client, "execute_command", _command)

    for pipeline in (SharedPipeline, ClusterPipeline):
        if "execute" in pipeline.__dict__:
            tracing.point(pipeline, "execute", _pipeline)


def _command(_: object, *args: Any, **__: Any) -> Operation:
    """Describe a command by its name: its keys and values are the users' own."""
    command = Command(args) if args else None
    name = "COMMAND" if command is None else command.name
    attributes = {"db.system.name": "redis", "db.operation.name": name}
    return Operation(name, attributes, waits=command is not None and command.route is Route.BLOCKING)


def _pipeline(pipeline: Any, *_: Any, **__: Any) -> Operation:
    """Describe a pipeline by its length, and by the name of its commands if it is one name."""
    names = {Command(args).name for args, _ in pipeline.command_stack}
    name = f"PIPELINE {names.pop()}" if len(names) == 1 else "PIPELINE"
    size = len(pipeline.command_stack)
    return Operation(
        name, {"db.system.name": "redis", "db.operation.name": name, "db.operation.batch.size": size}
    )

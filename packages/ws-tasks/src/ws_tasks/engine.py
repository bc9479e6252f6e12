"""Jobs: functions declared once, handed to an engine by a call, run by whichever engine is open.

A `task` is declared with how it is to be run; ``enqueue`` hands a call to the engine of the running
loop. `LocalEngine` runs jobs in this process. Arguments must be JSON and arrive as JSON makes them
(tuples as lists), so that nothing changes when an engine in other processes takes over.
"""

from __future__ import annotations

from ws_tasks._definition import Declaration, Engine, Job, TaskDefinition, task
from ws_tasks._local_engine import LocalEngine

__all__ = ("Declaration", "Engine", "Job", "LocalEngine", "TaskDefinition", "task")

for _public in (Declaration, Engine, Job, LocalEngine, TaskDefinition, task):
    _public.__module__ = __name__

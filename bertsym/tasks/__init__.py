"""Kinds of task: one module each, and a row of TASKS."""

from __future__ import annotations

from bertsym.tasks.classification import Classification
from bertsym.tasks.task import Task

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classification,)}

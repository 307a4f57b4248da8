"""The engine in a process of its own: client, worker, messages. Only the worker imports torch."""

"""What may be asked, one file per noun. Each has ``routes(services…) -> Routes``: method names to coroutines."""
